"""Small training data for the recipes."""

import pytest

from zeroshift.miniature.training import data
from zeroshift.miniature.training.photos import Photos
from zeroshift.miniature.training.portraits import Portraits


@pytest.fixture
def few_people(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of four people."""
    monkeypatch.setattr(data, "PEOPLE", 4)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of four portraits, every second or third of which is truncated, and few blocks at the beginning."""
    monkeypatch.setattr(Portraits, "BLOCK", 4)
    monkeypatch.setattr(Portraits, "FIRST", 1)
    monkeypatch.setattr(Portraits, "STEPS_PER_BLOCK", 2)
    monkeypatch.setattr(Portraits, "TRUNCATED", 3)
    monkeypatch.setattr(Photos, "FIRST", 2)
    monkeypatch.setattr(Photos, "STEPS_PER_BLOCK", 2)
