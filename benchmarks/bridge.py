"""How well directions from labels and from captions agree with the true shifts of people in the miniature world.

    python benchmarks/bridge.py --images training/blocks

prints the table of docs/compass.md: cosines in the features of the guidance encoder, over 256 people whom neither the
encoder nor the bridge has seen. With --images (the folder of `zeroshift miniature train bridge`), bridges are fitted
again without the images of a target.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from zeroshift.clip.bridge import (
    STRENGTH,
    Bridge,
    count_mentions,
    packaged_bridge,
    ridge,
    shift_map,
    unit_text_features,
)
from zeroshift.clip.encoder import Encoder
from zeroshift.clip.loading import load_encoder
from zeroshift.miniature.training.bridge import block_captions
from zeroshift.miniature.training.data import Blocks
from zeroshift.miniature.world.domains import SOURCE, Domain, parse_domain
from zeroshift.miniature.world.renderer import render, sample_latents

TARGETS = (
    "zombie", "marble statue", "pencil sketch", "neon sign", "robot", "mosaic of a robot", "watercolor of a zombie",
)  # fmt: skip
PEOPLE, SEED, CAPTIONS = 256, 79, 2000
BLOCKS = 50  # of 384 images, for bridges that are fitted again


def features(encoder: Encoder, domain: Domain) -> Tensor:
    """Unit features [PEOPLE, E] of the true images."""
    images = render(sample_latents(SEED, range(PEOPLE)), domain, SEED, range(PEOPLE))
    with torch.no_grad():
        return F.normalize(torch.cat([encoder.encode_image(part) for part in images.split(64)]), dim=-1)


def mean_cosine(one: Tensor, other: Tensor) -> float:
    return F.cosine_similarity(one, other, dim=-1).mean().item()


class Fits:
    """Bridges fitted to parts of the training images."""

    def __init__(self, encoder: Encoder, bridge: Bridge, folder: Path):
        self._bridge = bridge
        data, images, texts = Blocks(folder, BLOCKS, 1), [], []
        self._domains: list[Domain] = []
        self._captions: list[str] = []
        for number in range(BLOCKS):
            block = data.block(number)
            said = block_captions(block, f"1/{number}")
            with torch.no_grad():
                images.append(F.normalize(encoder.encode_image(block.images), dim=-1))
            texts.append(unit_text_features(encoder, said))
            self._domains += block.domains
            self._captions += said
        self._images, self._texts = torch.cat(images), torch.cat(texts)

    def without(self, left_out: Callable[[Domain], bool]) -> Bridge:
        """A bridge fitted to the images of all other domains."""
        kept = torch.tensor([not left_out(domain) for domain in self._domains])
        said = [caption for caption, keep in zip(self._captions, kept.tolist(), strict=True) if keep]
        return replace(
            self._bridge,
            map=ridge(self._texts[kept], self._images[kept], STRENGTH),
            mentions=count_mentions(said, self._bridge.attributes),
        )


def shares_a_word(one: Domain, other: Domain) -> bool:
    """Whether two domains have the being in common (if it is no person) or the medium (if it is no photo)."""
    return one.being == other.being != SOURCE.being or one.medium == other.medium != SOURCE.medium


def agreement(name: str, found: Tensor, true: Tensor) -> list[tuple[str, float]]:
    """Cosines of shifts [PEOPLE, E] with the true ones."""
    mean, true_mean = found.mean(dim=0, keepdim=True), true.mean(dim=0, keepdim=True)
    return [
        (f"{name}: with the mean true shift", mean_cosine(mean, true_mean)),
        (f"{name}: mean over people", mean_cosine(found, true)),
        (f"{name}: the person's own part alone", mean_cosine(found - mean, true - true_mean)),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of rendered training images; default: no fits")
    folder = parser.parse_args(arguments).images
    encoder, bridge = load_encoder("miniature"), packaged_bridge("miniature")
    assert bridge is not None
    # Without the knowledge of what captions of a label do not say.
    ignorant = replace(bridge, mentions={"": bridge.mentions[""]})
    fits = None if folder is None else Fits(encoder, bridge, folder)
    before = features(encoder, SOURCE)
    rows: dict[str, list[float]] = {}
    for target in TARGETS:
        domain = parse_domain(target)
        true = features(encoder, domain) - before
        text = (encoder.label_feature(target) - encoder.label_feature("photo"))[None]
        bridges = {"compass": bridge, "the same, all attributes in both captions": ignorant}
        if fits is not None:
            bridges["bridge without the domain"] = fits.without(lambda other, this=domain: other == this)
            bridges["bridge without its medium and being"] = fits.without(
                lambda other, this=domain: shares_a_word(this, other)
            )
        cells = [
            ("text, label: with the mean true shift", mean_cosine(text, true.mean(dim=0, keepdim=True))),
            ("text, label: mean over people", mean_cosine(text, true)),
            ("the true mean shift for all people", mean_cosine(true.mean(dim=0, keepdim=True), true)),
        ]
        for name, each in bridges.items():
            cells += agreement(name, shift_map(each, encoder, "photo", target, CAPTIONS)(before), true)
        for name, value in cells:
            rows.setdefault(name, []).append(value)
    print(f"| direction | {' | '.join(TARGETS)} |\n|{' --- |' * (1 + len(TARGETS))}")
    for name, values in rows.items():
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |")


if __name__ == "__main__":
    main()
