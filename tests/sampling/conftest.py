"""A source generator and one adapted from it."""

import copy
from pathlib import Path

import pytest
import torch

from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.files import load_generator


@pytest.fixture
def source(tiny_generator: Path) -> Generator:
    return load_generator(tiny_generator)


@pytest.fixture
def target(source: Generator) -> Generator:
    moved = copy.deepcopy(source)
    with torch.no_grad():
        for parameter in moved.synthesis.parameters():  # the mapping of the source stays
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    return moved
