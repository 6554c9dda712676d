"""Sheets of people."""

from pathlib import Path

import torch

from zeroshift.miniature.benchmark.sheets import read_people, save_people
from zeroshift.miniature.world.renderer import render, sample_latents


def test_images_round_trip_through_a_sheet(tmp_path: Path) -> None:
    images = render(sample_latents(5, range(20)))
    save_people(tmp_path / "people.png", images)
    torch.testing.assert_close(read_people(tmp_path / "people.png", 20), images, atol=1 / 127, rtol=0)
