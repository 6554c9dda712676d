"""Sheets of rendered images."""

import numpy as np
import pytest

from zeroshift.miniature.world.domains import parse_domain
from zeroshift.miniature.world.factors import FACTOR_INDEX, FACTORS, class_indices, positions
from zeroshift.miniature.world.renderer import render, sample_latents
from zeroshift.miniature.world.sheet import domain_sheet, factor_latents, factor_sheet


@pytest.mark.parametrize("factor", FACTORS, ids=lambda factor: factor.name)
def test_factor_latents_differ_in_one_factor(factor):
    u = positions(factor_latents(factor.name))
    sink = "clothing_pattern" if factor.name != "clothing_pattern" else "earrings"
    others = [i for name, i in FACTOR_INDEX.items() if name not in (factor.name, sink)]
    assert (u[:, others] - u[:1, others]).abs().max() < 1e-5
    assert u[:, FACTOR_INDEX[sink]].max() < 0.01  # its first class, for sure
    assert (u[:, FACTOR_INDEX[factor.name]].diff() > 0).all()
    if factor.is_class:
        assert class_indices(factor_latents(factor.name))[factor.name].tolist() == list(range(len(factor.classes)))


def test_domain_sheets_have_a_row_per_domain_and_a_column_per_person():
    small = domain_sheet([parse_domain("zombie")], num=2, seed=0)
    large = domain_sheet([parse_domain("zombie"), parse_domain("mosaic")], num=2, seed=0)
    assert small.dtype == np.uint8
    assert large.shape[0] > small.shape[0] + 64
    people = render(sample_latents(0, range(2)), parse_domain("zombie"))
    tile = ((people[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    windows = np.lib.stride_tricks.sliding_window_view(small[..., 0], tile.shape[:2])
    assert any(np.array_equal(window, tile[..., 0]) for row in windows for window in row)


def test_factor_sheet_shows_visible_factors_only():
    sketch = parse_domain("pencil sketch")
    one = factor_sheet(sketch, sketch.visible[:1])
    assert factor_sheet(sketch, sketch.visible[:3]).shape[0] > one.shape[0] + 128
