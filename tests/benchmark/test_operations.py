"""The counts of benchmarks/operations.py."""

import pytest
import torch
from operations import Arguments, FlopCounter, main


def test_operations_are_counted_in_both_directions() -> None:
    left, right = torch.randn(3, 4, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    with FlopCounter() as counter:
        product = left @ right
        assert counter.total == 2 * 3 * 4 * 5
        torch.autograd.grad(product.sum(), (left, right))
    assert counter.total == 3 * 2 * 3 * 4 * 5


@pytest.mark.slow
def test_counts_of_a_small_generator() -> None:
    counts, sizes = main(Arguments(resolutions=(32,), encoder="ViT-B-32-quickgelu"))
    count, size = counts[32], sizes[32]
    published, alone = count["8 latents, as published"], count["no choice"]
    assert count["every 4th step"] - alone == pytest.approx((published - alone) / 4)
    assert count["2 latents"] - alone == pytest.approx((published - alone) / 4, rel=0.02)
    assert alone < count["by the training batch"] < count["2 latents"]
    assert size["choice by 8 images in parts"] == size["choice by 8 images at once"], "small images are one part"
    assert size["training, batch 2"] < size["choice by 8 images at once"] / 3
    assert size["training, checkpointing"] < size["training, batch 2"] / 2
