"""Reads the files of pSp, e4e and ReStyle: {"state_dict": {"encoder.*", "decoder.*"}, "latent_avg", "opts"}.

The decoder in such a file is a generator in rosinality's layout, which `load_generator` opens.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zeroshift.clip.weights import build, open_content, tensors_of
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.claims import expected_shapes
from zeroshift.generators.checkpoints.torch_data import is_array
from zeroshift.inversion.encoders import FlatEncoder, Form, PublishedEncoder, PyramidEncoder
from zeroshift.io.pickles import Record, items_of

__all__ = ["encoder_from_weights", "read_encoder"]

_BACKBONE = ("input_layer.", "body.", "conv1.", "bn1.", "relu.")
_TYPES = {
    "GradualStyleEncoder": "pSp", "Encoder4Editing": "e4e",
    "BackboneEncoder": "ReStyle pSp", "ProgressiveBackboneEncoder": "ReStyle e4e",
    "ResNetBackboneEncoder": "ReStyle pSp", "ResNetProgressiveBackboneEncoder": "ReStyle e4e",
}  # fmt: skip
"""`opts.encoder_type` of the programs that we read."""
_OFFSETS = ("e4e", "ReStyle e4e")


def read_encoder(path: str | Path) -> PublishedEncoder:
    """The encoder in a published file, frozen, in evaluation mode on the CPU.

    Raises:
        ZeroshiftError: a file that is missing, damaged or of another kind.
    """
    path = Path(path)
    content = open_content(path)
    items = items_of(content.root) or {}
    values = items_of(items.get("state_dict")) or {}
    encoder = {
        name.removeprefix("encoder."): value
        for name, value in values.items()
        if isinstance(name, str) and name.startswith("encoder.")
    }
    if not encoder:
        raise ZeroshiftError(
            f"{path} holds no inversion encoder: it has no weights named encoder.* under state_dict. Give a checkpoint "
            "of pSp, e4e or ReStyle."
        )
    average: Any = items.get("latent_avg")
    latent_avg = content.tensor(average, "latent_avg").float() if is_array(average) else None
    kind = _kind(items.get("opts"), str(path))
    return encoder_from_weights(tensors_of(content, encoder, path), latent_avg, kind, str(path))


def encoder_from_weights(
    weights: Mapping[str, Tensor], latent_avg: Tensor | None, kind: str | None, path: str
) -> PublishedEncoder:
    """The encoder with the published `weights`, frozen, in evaluation mode.

    Args:
        weights: without the prefix "encoder.".
        latent_avg: [512] or [num_styles, 512]; None: zeros.
        kind: "pSp", "e4e", "ReStyle pSp" or "ReStyle e4e"; None: taken from the name of the file. Weights of pSp and
            e4e have the same names and shapes, so they do not tell.
        path: for messages.

    Raises:
        ZeroshiftError: weights of another network, or a kind that nothing tells.
    """
    num_styles = len({match[1] for name in weights if (match := re.match(r"styles\.(\d{1,3})\.", name))})
    pyramid = "latlayer1.weight" in weights
    kind = kind or _kind_by_name(Path(path).name, pyramid)
    form: Form = "offsets" if kind in _OFFSETS else "absolute"
    first = weights.get("input_layer.0.weight", weights.get("conv1.weight"))
    if not num_styles or first is None or first.ndim != 4:
        raise ZeroshiftError(
            f"The encoder in {path} is none of pSp, e4e or ReStyle with IR-SE50 or ResNet34: its weights have other "
            "names. Give a checkpoint of one of them."
        )
    in_channels = first.shape[1]
    if in_channels != (3 if pyramid else 6):
        raise ZeroshiftError(f"The encoder in {path} takes {in_channels} input channels, which {kind} does not have.")

    def make() -> PyramidEncoder | FlatEncoder:
        if pyramid:
            return PyramidEncoder(num_styles, form)
        return FlatEncoder(num_styles, form, "irse50" if "input_layer.0.weight" in weights else "resnet34")

    ours = {
        f"backbone.{name}" if name.startswith(_BACKBONE) else name: value.float()
        if value.is_floating_point()
        else value
        for name, value in weights.items()
    }
    for name in expected_shapes(make):
        if name.endswith("num_batches_tracked"):  # unused; early files lack it
            ours.setdefault(name, torch.zeros((), dtype=torch.long))
    network = build(make, ours, f"The encoder in {path}")
    if latent_avg is not None and latent_avg.shape not in {(512,), (1, 512), (num_styles, 512)}:
        raise ZeroshiftError(f"latent_avg in {path} has the shape {list(latent_avg.shape)}, not [{num_styles}, 512].")
    return PublishedEncoder(network, latent_avg, f"{kind} ({Path(path).name})").eval().requires_grad_(False)


def _kind(options: Any, path: str) -> str | None:
    """The program by `opts.encoder_type`, a Namespace or dict; None if there is none.

    Raises:
        ZeroshiftError: an encoder of a type that we do not read.
    """
    values = options.state if isinstance(options, Record) else options
    name = values.get("encoder_type") if isinstance(values, Mapping) else None
    if not isinstance(name, str):
        return None
    if name not in _TYPES:
        raise ZeroshiftError(f"{path} holds a {name[:60]!r}. zeroshift reads {', '.join(_TYPES)}.")
    return _TYPES[name]


def _kind_by_name(file: str, pyramid: bool) -> str:
    """The program by the file's name, as published: e4e_ffhq_encode.pt, restyle_psp_ffhq_encode.pt."""
    for part, kinds in (("e4e", ("ReStyle e4e", "e4e")), ("psp", ("ReStyle pSp", "pSp"))):
        if part in file.lower():
            return kinds[pyramid]
    raise ZeroshiftError(
        f"{file} does not tell whether it is of pSp or e4e, whose weights have the same names: it has no "
        "opts.encoder_type. Give it a name with psp or e4e in it, as published files have."
    )
