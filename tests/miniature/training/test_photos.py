"""Photos, the training images of the diffusion models."""

import numpy as np
import torch

from zeroshift.core.rng import normal
from zeroshift.miniature.training.photos import Photos
from zeroshift.miniature.training.portraits import Portraits
from zeroshift.miniature.world.factors import NUM_FACTORS
from zeroshift.miniature.world.renderer import render


def test_photos_are_the_portraits_without_the_truncated(tmp_path, small_blocks, monkeypatch):
    photos = Photos(tmp_path, seed=1)
    photos.batch("photos", 6, 8)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [f"seed1-block{block:05d}.npy" for block in (0, 1, 3, 4, 6)]  # 2 and 5 are truncated
    latents = normal((NUM_FACTORS,), 1, "portraits", samples=range(12, 16))
    assert np.abs(np.load(tmp_path / names[2]) / 127.5 - 1 - render(latents).numpy()).max() < 1.01 / 127.5
    portraits = Portraits(tmp_path / "other", seed=1)
    monkeypatch.setattr(Portraits, "FIRST", 5)
    portraits.batch(0, 1)
    for name in names[:3]:
        assert np.array_equal(np.load(tmp_path / name), np.load(tmp_path / "other" / name))


def test_photos_depend_on_step_and_purpose_alone(tmp_path, small_blocks, monkeypatch):
    one = Photos(tmp_path, seed=1).batch("photos", 3, 5)
    monkeypatch.setattr("zeroshift.miniature.training.photos.render", None)  # nothing is rendered again
    again = Photos(tmp_path, seed=1)
    assert torch.equal(one, again.batch("photos", 3, 5))
    assert not torch.equal(one, again.batch("others", 3, 5))
    assert -1 <= one.min() < -0.5 < 0.5 < one.max() <= 1
