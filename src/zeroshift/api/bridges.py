"""Fits bridges from texts to images to folders of captioned images."""

import importlib.resources
import math
from pathlib import Path
from typing import Literal

from torch import Tensor

from zeroshift.clip.bridge import Attributes, Bridge, fit_bridge
from zeroshift.clip.captioned_images import CAPTION_BATCH, caption_batches, find_captions
from zeroshift.clip.loading import load_encoder
from zeroshift.core.batching import Track, untracked
from zeroshift.core.distributed import Distributed
from zeroshift.io.foreign import matches, parse_json, read_json

__all__ = ["fit"]


def fit(
    images: Path,
    encoder: str,
    *,
    attributes: Path | None = None,
    num: int | None = None,
    device: Literal["auto", "cpu"] = "auto",
    track: Track[tuple[Tensor, list[str]]] = untracked,
) -> Bridge:
    """Fits a bridge to captioned images.

    Args:
        images: folder, see `clip.captioned_images.find_captions`.
        encoder: see `clip.loading.load_encoder`.
        attributes: JSON file with alternative phrases by attribute; None: a list for portraits.
        num: largest number of images; None: all.
        device: "auto": the accelerator, if there is one; "cpu".
        track: shows progress over batches.

    Raises:
        ZeroshiftError: if a file cannot be read, or there are too few images.
    """
    if attributes is None:
        packaged = importlib.resources.files("zeroshift.clip") / "faces.json"
        value = parse_json(packaged.read_bytes(), "faces.json")
    else:
        value = read_json(attributes)
    phrases = matches(Attributes, value, str(attributes or "faces.json")).root
    pairs = find_captions(images)[:num]
    model = load_encoder(encoder, Distributed(device).device)
    batches = caption_batches(pairs, max(model.image_size))
    return fit_bridge(model, track(batches, math.ceil(len(pairs) / CAPTION_BATCH), "Reading images"), phrases)
