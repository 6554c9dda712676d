"""Blocks of training images."""

import torch

from zeroshift.miniature.training.data import DOMAINS_PER_BLOCK, Blocks
from zeroshift.miniature.world.domains import HELD_OUT, SOURCE, TRAINED
from zeroshift.miniature.world.renderer import render


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_blocks_have_no_held_out_pair_and_are_reproducible(few_people, tmp_path):
    blocks = Blocks(tmp_path, 40, seed=1)
    shown = [domain for block in blocks.domains for domain in block]
    assert not HELD_OUT & set(shown)
    assert all(block[0] == SOURCE and len(set(block)) == DOMAINS_PER_BLOCK for block in blocks.domains)
    assert set(shown) == set(TRAINED)
    assert Blocks(tmp_path, 20, seed=1).domains == blocks.domains[:20]  # more blocks change none of the first


def test_batch_images_match_their_labels(few_people, tmp_path):
    blocks = Blocks(tmp_path, 2, seed=3)
    batch = blocks.batch(generator(), 2, groups=2, people=3)
    assert batch.images.shape == (2 * DOMAINS_PER_BLOCK * 3, 3, 64, 64)
    row = 4  # second domain of the first group
    assert batch.domains[row] == TRAINED[batch.indices[row]]
    assert torch.equal(batch.latents[row], batch.latents[row - 3])  # the same person in the domain before
    sample = next(i for i, z in enumerate(blocks.latents.flatten(0, 1)) if torch.equal(z, batch.latents[row]))
    truth = render(batch.latents[row : row + 1], batch.domains[row], 3, [sample])
    assert (batch.images[row] - truth[0]).abs().max() <= 1 / 127  # eight bits
    again = Blocks(tmp_path, 2, seed=3).batch(generator(), 2, groups=2, people=3)
    assert torch.equal(batch.images, again.images)
