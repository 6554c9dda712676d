"""Reads published diffusion autoencoders (github.com/phizaz/diffae) without executing anything in the files.

Such a .ckpt is a training checkpoint of PyTorch Lightning: `state_dict` holds `model.*`, its moving average
`ema_model.*` and `x_T`, noise with the shape of an image. All sizes come from the weights.

The statistics of z_sem over the data, needed to sample images, are in a second file in the same folder (`latent.ckpt`),
or, as mean and standard deviation, in the checkpoints with a latent diffusion model. That model itself is ignored.
"""

import functools
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.claims import expected_shapes, listed, misfits
from zeroshift.generators.checkpoints.stylegan_files import reading
from zeroshift.generators.checkpoints.torch_data import Content, is_array, open_torch, pickle_member
from zeroshift.generators.diffusion.autoencoder import DiffusionAutoencoder
from zeroshift.generators.diffusion.autoencoder_network import ConditionalUNet, SemanticEncoder
from zeroshift.io.foreign import first_line
from zeroshift.io.pickles import items_of

__all__ = ["convert", "is_diffae", "read_diffae"]

# From templates.py and config.py there: noise prediction, sampling steps spaced from timestep 0.
SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02,
    "prediction_type": "epsilon", "clip_sample": True, "set_alpha_to_one": True, "timestep_spacing": "leading",
    "steps_offset": 0,
}  # fmt: skip
_STATISTICS = ("latent.ckpt", "latent.pkl")
_PREFIX = "ema_model."
_MAX_RESOLUTION, _MAX_WIDTH = 4096, 8192
_MARK = b"cond_emb_layers"  # the layers for z_sem in the U-Net

_BLOCK = {
    "in_layers.0": "norm0", "in_layers.2": "conv0", "emb_layers.1": "time", "cond_emb_layers.1": "semantic",
    "out_layers.0": "norm1", "out_layers.3": "conv1", "skip_connection": "skip",
}  # fmt: skip
_ATTENTION = {"norm": "norm", "qkv": "qkv", "proj_out": "out"}
_MIDDLE = {"0": "mid.0.block", "1": "mid.0.attention", "2": "mid.1.block"}
_ENDS = {"time_embed.time_embed.0": "time0", "time_embed.time_embed.2": "time1", "out.0": "norm_out"}
_PLACE = re.compile(r"(?:(input|output)_blocks\.(\d{1,4})|middle_block)\.(\d{1,4})\.(.+)")


def is_diffae(path: Path) -> bool:
    """Whether a file of torch.save holds a diffusion autoencoder, by the names in it."""
    return _MARK in (pickle_member(path) or b"")


def read_diffae(path: Path) -> DiffusionAutoencoder:
    """The moving average of the diffusion autoencoder in a published checkpoint, on the CPU.

    Raises:
        ZeroshiftError: a damaged or suspicious file, or a network that differs from the published ones.
    """
    with reading(path):
        content = open_torch(path)
        state = (items_of(content.root) or {}).get("state_dict")
        state = {name: value for name, value in (items_of(state) or {}).items() if isinstance(name, str)}
        named = {name[len(_PREFIX) :]: value for name, value in state.items() if name.startswith(_PREFIX)}
        if not named:
            raise ZeroshiftError(f"{path} holds no diffusion autoencoder: its state_dict has no {_PREFIX}* weights.")
        weights = {name: content.tensor(value, name) for name, value in named.items() if is_array(value)}
        try:
            generator = convert(weights, content.tensor(state["x_T"], "x_T").shape[-1])
        except ZeroshiftError as error:
            raise ZeroshiftError(f"{path} could not be loaded. {error}") from error
        except (KeyError, IndexError, AttributeError, ValueError, RuntimeError) as error:
            raise ZeroshiftError(
                f"{path} holds a diffusion autoencoder that differs from the published ones ({first_line(error)})."
            ) from error
        _set_statistics(generator, path, content, state)
        return generator


def convert(weights: Mapping[str, Tensor], resolution: int) -> DiffusionAutoencoder:
    """The generator with the weights of a published network by name, including `encoder.*`.

    Raises:
        ZeroshiftError: weights of modules that the published networks do not have, or of other shapes.
        KeyError, IndexError, ValueError: weights that are missing.
    """
    first = weights["time_embed.time_embed.0.weight"]  # [embed_dim, time_dim]
    encoder = {name[len("encoder.") :]: value for name, value in weights.items() if name.startswith("encoder.")}
    others = {name: value for name, value in weights.items() if not name.startswith(("encoder.", "latent_net."))}
    blocks = 1 + min(
        int(match[1])
        for name in others
        if (match := re.match(r"output_blocks\.(\d{1,4})\.[12]\.in_layers", name))  # those that double the resolution
    )
    z_dim = encoder["out.3.weight"].shape[0]
    if not (8 <= resolution <= _MAX_RESOLUTION and 1 <= z_dim <= _MAX_WIDTH):
        raise ZeroshiftError(f"It claims images of {resolution} pixels and a z_sem of {z_dim} numbers.")
    common = {"resolution": resolution, "z_dim": z_dim, "blocks": blocks - 1, "groups": 32}
    settings = (
        {**common, **_levels(others, blocks, resolution), "embed_dim": first.shape[0], "time_dim": first.shape[1]},
        {**common, **_levels(encoder, blocks, resolution)},
    )
    renamed = (
        dict(_renamed(others, {**_ENDS, "out.2": "conv_out"})),
        dict(_renamed(encoder, {"out.0": "norm_out", "out.3": "out"})),
    )
    for network, arguments, named in zip((ConditionalUNet, SemanticEncoder), settings, renamed, strict=True):
        expected = expected_shapes(functools.partial(network, **arguments))
        wrong = misfits(expected, {name: value.shape for name, value in named.items()})
        if wrong:
            raise ZeroshiftError(f"It differs from the published diffusion autoencoders: {listed(wrong)}.")
    generator = DiffusionAutoencoder(*settings, SCHEDULER)
    generator.unet.load_state_dict(renamed[0])
    generator.encoder.load_state_dict(renamed[1])
    return generator.eval()


def _levels(weights: Mapping[str, Tensor], blocks: int, resolution: int) -> dict[str, Any]:
    """Channels of the levels, each with `blocks` input blocks, and the resolutions with attention."""
    count = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("input_blocks."))
    starts = range(1, count, blocks)  # input block 0 is a convolution; the last of a level halves the resolution
    channels = [weights[f"input_blocks.{start}.0.in_layers.2.weight"].shape[0] for start in starts]
    attention = [
        resolution >> level for level, start in enumerate(starts) if f"input_blocks.{start}.1.qkv.weight" in weights
    ]
    return {"channels": channels, "attention": attention}


def _renamed(weights: Mapping[str, Tensor], ends: Mapping[str, str]) -> Iterator[tuple[str, Tensor]]:
    """The weights under our names. 1x1 convolutions that are linear layers here lose their last axes."""
    for name, value in weights.items():
        module, _, kind = name.rpartition(".")
        ours = ends.get(module) or _our_name(module)
        if ours is None:
            raise ZeroshiftError(f"It contains {name}, which published diffusion autoencoders do not have.")
        linear = ours == "out" or ".attention." in ours
        yield f"{ours}.{kind}", value.flatten(1) if linear and kind == "weight" and value.ndim > 1 else value


def _our_name(module: str) -> str | None:
    if module == "input_blocks.0.0":
        return "conv_in"
    match = _PLACE.fullmatch(module)
    if match is None:
        return None
    side, number, index, part = match.groups()
    ours = _BLOCK.get(part) or _ATTENTION.get(part)
    if side is None:
        return f"{_MIDDLE[index]}.{ours}" if ours and index in _MIDDLE else None
    role = "attention" if part in _ATTENTION else "block" if index == "0" else "up"
    stage = f"down.{int(number) - 1}" if side == "input" else f"up.{number}"
    return f"{stage}.{role}.{ours}" if ours else None


def _set_statistics(generator: DiffusionAutoencoder, path: Path, content: Content, state: Mapping[str, Any]) -> None:
    width = generator.mapper_input_dim
    for beside in (path.with_name(name) for name in _STATISTICS):
        if beside.exists():
            with reading(beside):
                other = open_torch(beside)
                conds = (items_of(other.root) or {}).get("conds")
                z_sem = other.tensor(conds, "conds") if is_array(conds) else torch.empty(0)
                if z_sem.ndim != 2 or z_sem.shape[1] != width or len(z_sem) < 2:
                    raise ZeroshiftError(f"{beside} holds no z_sem of width {width} for {path.name}.")
                generator.fit_statistics(z_sem.float())
            return
    if is_array(state.get("conds_mean")) and is_array(state.get("conds_std")):
        mean, std = (content.tensor(state[name], name).flatten() for name in ("conds_mean", "conds_std"))
        if not len(mean) == len(std) == width:
            raise ZeroshiftError(f"{path} has statistics of {len(mean)} numbers for a z_sem of {width}.")
        generator.z_mean.copy_(mean)
        generator.z_factor.copy_(std.diag())
        return
    warnings.warn(
        f"There is no {_STATISTICS[0]} beside {path}, with the statistics of z_sem. Real images can be translated, but "
        "sampled images will look unrealistic. Download it from the folder of the checkpoint.",
        stacklevel=4,
    )
