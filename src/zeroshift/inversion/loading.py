"""Finds the encoder of a generator: a published file, or the one that the generator's catalogue entry names."""

from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name

from zeroshift.generators.checkpoints.catalogue import find_entry
from zeroshift.inversion.encoder_files import read_encoder
from zeroshift.inversion.encoders import InversionEncoder

__all__ = ["load_inversion_encoder"]


def load_inversion_encoder(generator: str | Path, encoder: str = "auto") -> InversionEncoder | None:
    """An encoder for photos, frozen, on the CPU.

    Args:
        generator: the generator's name or file.
        encoder: a file of pSp, e4e or ReStyle; "auto": the encoder of the generator's catalogue entry, if it has one;
            "none".

    Returns:
        None if there is no encoder.

    Raises:
        ZeroshiftError: a file that is missing, damaged or of another kind.

    Examples:
        >>> encoder = load_inversion_encoder("miniature")
        >>> load_inversion_encoder("miniature", "none") is None
        True
    """
    if encoder == "none":
        return None
    if encoder != "auto":
        return read_encoder(encoder)
    entry = find_entry(generator)
    if entry is None or not entry.inversion_encoder:
        return None
    load: Callable[[], InversionEncoder] = resolve_name(entry.inversion_encoder)
    return load()
