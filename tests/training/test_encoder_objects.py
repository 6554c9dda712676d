from pathlib import Path

import pytest

from zeroshift.clip.loading import load_encoder
from zeroshift.config.settings import AdaptConfig
from zeroshift.errors import ZeroshiftError
from zeroshift.training.trainer import adapt


def test_as_many_encoder_objects_as_names_are_needed(tiny_generator: Path, tiny_encoder: Path) -> None:
    encoder = load_encoder(str(tiny_encoder))
    config = AdaptConfig(target="zombie", device="cpu", generator=str(tiny_generator), encoders=(str(tiny_encoder),))
    with pytest.raises(ZeroshiftError, match="2 encoder objects were given, but the configuration names 1"):
        adapt(config, encoders=[encoder, encoder])
    with pytest.raises(ZeroshiftError, match="0 encoder objects were given"):
        adapt(config, encoders=[])
