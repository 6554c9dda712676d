import math

import pytest
import torch
from torch import nn

from zeroshift.core.finite import first_not_finite, is_finite, require_finite_images, require_finite_weights
from zeroshift.errors import NotFiniteError


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_one_bad_value_is_found(value: float, dtype: torch.dtype) -> None:
    values = torch.ones(3, 5, dtype=dtype)
    assert is_finite(values)
    values[1, 2] = value
    assert not is_finite(values)


def test_infinities_of_both_signs_do_not_cancel_and_large_sums_are_finite() -> None:
    assert not is_finite(torch.tensor([math.inf, -math.inf]))
    assert is_finite(torch.full((9,), 3e38))
    assert is_finite(torch.full((9,), 6e4, dtype=torch.float16))
    assert is_finite(torch.zeros(0))
    assert is_finite(torch.tensor([1, 2]))


def test_the_path_of_a_tensor_is_named() -> None:
    bad = torch.tensor([math.nan])
    assert first_not_finite({"target": {"w_avg": bad}}) == "target.w_avg"
    assert first_not_finite([torch.ones(1), {"state": {0: bad}}]) == "1.state.0"
    assert first_not_finite({"loss": math.nan, "w": torch.ones(2)}) is None


def test_attention_masks_are_no_damage() -> None:
    module = nn.Linear(2, 2)
    module.register_buffer("mask", torch.full((3, 3), -math.inf).triu(1))
    require_finite_weights(module, "It")
    module.register_buffer("mean", torch.tensor([0.0, -math.inf]))
    with pytest.raises(NotFiniteError, match="It has weights that are not finite numbers, in mean"):
        require_finite_weights(module, "It")


def test_images_are_checked() -> None:
    require_finite_images(torch.ones(1, 3, 2, 2))
    with pytest.raises(NotFiniteError, match="The generator X makes images"):
        require_finite_images(torch.full((1, 3, 2, 2), math.nan), "The generator X")
