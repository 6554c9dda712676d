"""Pictures are enlarged as asked, and say so."""

import numpy as np
import pytest
from PIL import Image

from zeroshift.errors import ZeroshiftError
from zeroshift.io.scaling import Scale

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 12, 3), dtype=np.uint8)


def test_whole_factors_repeat_pixels() -> None:
    expected = PIXELS.repeat(3, axis=0).repeat(3, axis=1)
    for text in (3, "3", "18px"):
        scale = Scale.parse(text)
        assert (scale(PIXELS) == expected).all()
        assert scale.note(6, 12) == "scaled from 12 x 6 to 36 x 18 pixels (nearest)"
    batch = Scale.parse(3)(np.stack([PIXELS, PIXELS[::-1]]))
    assert (batch[0] == expected).all()
    assert batch.shape == (2, 18, 36, 3)


@pytest.mark.parametrize(("text", "resample"), [("9px", "auto"), ("4px", "auto"), ("2", "lanczos")])
def test_other_sizes_are_smooth(text: str, resample: str) -> None:
    scale = Scale.parse(text, resample)  # type: ignore[arg-type]
    height, width = scale.size(6, 12)
    assert width == 2 * height
    expected = np.asarray(Image.fromarray(PIXELS).resize((width, height), Image.Resampling.LANCZOS))
    assert (scale(PIXELS) == expected).all()
    assert scale.note(6, 12).endswith(f"to {width} x {height} pixels (lanczos)")


def test_nothing_is_done_without_a_scale() -> None:
    for text in (1, "6px"):
        assert Scale.parse(text)(PIXELS) is PIXELS
        assert Scale.parse(text).note(6, 12) == ""


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "px", "1e3", "", "100000", "4 px", "٣"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ZeroshiftError, match="it must be a whole factor, such as 4, or a height, such as 1024px"):
        Scale.parse(text)


def test_sizes_and_filters_are_checked() -> None:
    with pytest.raises(ZeroshiftError, match="would get 60000 x 30000; at most 16383 a side"):
        Scale.parse(5000)(PIXELS)
    with pytest.raises(ZeroshiftError, match="it must be auto, nearest or lanczos"):
        Scale.parse(2, "cubic")  # type: ignore[arg-type]
