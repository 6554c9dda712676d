"""Checks before a run."""

from functools import lru_cache

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.labels import weak_direction
from zeroshift.clip.loading import load_encoder
from zeroshift.config.settings import AdaptConfig
from zeroshift.methods.configure import resolve
from zeroshift.methods.registry import METHODS

__all__ = ["label_warnings"]


def label_warnings(config: AdaptConfig) -> list[str]:
    """What `adapt` would warn of before its first step: unknown words, and labels that are close to each other.

    Raises:
        ZeroshiftError: invalid settings, encoders that cannot be loaded, or labels that an encoder does not tell apart.
    """
    config = resolve(config)
    if not METHODS[config.method].reads_labels(config):
        return []
    notes = []
    for name in config.encoders:
        encoder = _encoder(name, config.resize)
        notes += [encoder.unknown_words(label) for label in (config.source, config.target)]
        notes.append(weak_direction(encoder, config.source, config.target))
    return list(dict.fromkeys(filter(None, notes)))


@lru_cache(maxsize=1)
def _encoder(name: str, resize: str) -> Encoder:
    return load_encoder(name, resize=resize)
