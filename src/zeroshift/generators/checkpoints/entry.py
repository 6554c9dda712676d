"""Entries of the generator catalogue."""

from dataclasses import dataclass

__all__ = ["CatalogueEntry"]


@dataclass(frozen=True)
class CatalogueEntry:
    """A generator with a name: a published checkpoint, or one that an installed package ships."""

    name: str
    family: str
    """A name in FAMILIES."""
    resolution: int
    license: str
    address: str | None = None
    """Address of the file or of the model on the Hugging Face Hub; None if a package ships it."""
    size_mb: float | None = None
    """Size of the download in MB; None if unknown."""
    package_file: str = ""
    """"package:relative/path" of a file or folder that an installed package ships."""
    preset: str = ""
    """Preset for this generator; empty: the family's."""
    encoder: str = ""
    """Default guidance encoder; empty: the preset's."""
    inversion_encoder: str = ""
    """"module:function" that loads the encoder for photos (`zeroshift.inversion`); empty: there is none."""
    alignment: str = ""
    """"faces": the generator draws faces aligned as in FFHQ, so that photos are aligned before they are inverted."""
    evaluator: str = ""
    """Held-out evaluator: the network for all feature-based measures; empty: the usual networks for photos."""
    num_samples: int | None = None
    """Number of samples for `evaluate`; None: the number in each measure's protocol."""
    truth: str = ""
    """"module:object" with the methods of `zeroshift.evaluation.truth.Truth`; empty: the truth is unknown."""
    train_command: str = ""
    """Command that makes the file if it is missing."""
    sha256: str = ""
    """SHA-256 of the file at the address, or its first digits; empty if unknown."""
    revision: str = ""
    """Commit of the model on the Hugging Face Hub; empty: the newest one at the time of the first download."""
