"""Reads published diffusion autoencoders (github.com/phizaz/diffae) without executing anything in the files.

Such a .ckpt is a training checkpoint of PyTorch Lightning: `state_dict` holds `model.*`, its moving average
`ema_model.*` and `x_T`, noise with the shape of an image. It also names Lightning's own classes. Inert classes replace
those, and torch.load(weights_only=True) reads the rest. All sizes come from the weights.

The statistics of z_sem over the data, needed to sample images, are in a second file in the same folder (`latent.ckpt`),
or, as mean and standard deviation, in the checkpoints with a latent diffusion model. That model itself is ignored.
"""

import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.diffusion.autoencoder import DiffusionAutoencoder

__all__ = ["convert", "is_diffae", "read_diffae"]

# From templates.py and config.py there: noise prediction, sampling steps spaced from timestep 0.
SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02,
    "prediction_type": "epsilon", "clip_sample": True, "set_alpha_to_one": True, "timestep_spacing": "leading",
    "steps_offset": 0,
}  # fmt: skip
_STATISTICS = ("latent.ckpt", "latent.pkl")
_INERT = ("pytorch_lightning", "lightning", "lightning_fabric", "numpy")  # packages whose names may occur
_MARK = b"cond_emb_layers"  # the layers for z_sem in the U-Net

_BLOCK = {
    "in_layers.0": "norm0", "in_layers.2": "conv0", "emb_layers.1": "time", "cond_emb_layers.1": "semantic",
    "out_layers.0": "norm1", "out_layers.3": "conv1", "skip_connection": "skip",
}  # fmt: skip
_ATTENTION = {"norm": "norm", "qkv": "qkv", "proj_out": "out"}
_MIDDLE = {"0": "mid.0.block", "1": "mid.0.attention", "2": "mid.1.block"}
_ENDS = {"time_embed.time_embed.0": "time0", "time_embed.time_embed.2": "time1", "out.0": "norm_out"}
_PLACE = re.compile(r"(?:(input|output)_blocks\.(\d+)|middle_block)\.(\d+)\.(.+)")


def is_diffae(path: Path) -> bool:
    """Whether a file of torch.save holds a diffusion autoencoder, by the names in it."""
    try:
        with zipfile.ZipFile(path) as archive:
            inside = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
            return inside is not None and _MARK in archive.read(inside)
    except (OSError, zipfile.BadZipFile):
        return False


def read_diffae(path: Path) -> DiffusionAutoencoder:
    """The moving average of the diffusion autoencoder in a published checkpoint, on the CPU.

    Raises:
        ZeroshiftError: a damaged or suspicious file, or a network that differs from the published ones.
    """
    content = _load(path)
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    prefix = "ema_model."
    if not isinstance(state, Mapping) or not any(str(name).startswith(prefix) for name in state):
        raise ZeroshiftError(f"{path} holds no diffusion autoencoder: its state_dict has no {prefix}* weights.")
    weights = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
    try:
        generator = convert(weights, resolution=state["x_T"].shape[-1])
    except ZeroshiftError as error:
        raise ZeroshiftError(f"{path} could not be loaded. {error}") from error
    except (KeyError, IndexError, AttributeError, ValueError, RuntimeError) as error:
        raise ZeroshiftError(
            f"{path} holds a diffusion autoencoder that differs from the published ones ({error})."
        ) from error
    _set_statistics(generator, path, state)
    return generator


def convert(weights: Mapping[str, Tensor], resolution: int) -> DiffusionAutoencoder:
    """The generator with the weights of a published network by name, including `encoder.*`.

    Raises:
        ZeroshiftError: weights of modules that the published networks do not have.
        KeyError, RuntimeError: weights that are missing or have unexpected shapes.
    """
    first = weights["time_embed.time_embed.0.weight"]  # [embed_dim, time_dim]
    encoder = {name[len("encoder.") :]: value for name, value in weights.items() if name.startswith("encoder.")}
    others = {name: value for name, value in weights.items() if not name.startswith(("encoder.", "latent_net."))}
    blocks = 1 + min(
        int(match[1])
        for name in others
        if (match := re.match(r"output_blocks\.(\d+)\.[12]\.in_layers", name))  # those that double the resolution
    )
    z_dim = encoder["out.3.weight"].shape[0]
    common = {"resolution": resolution, "z_dim": z_dim, "blocks": blocks - 1, "groups": 32}
    generator = DiffusionAutoencoder(
        {**common, **_levels(others, blocks, resolution), "embed_dim": first.shape[0], "time_dim": first.shape[1]},
        {**common, **_levels(encoder, blocks, resolution)},
        SCHEDULER,
    )
    generator.unet.load_state_dict(dict(_renamed(others, {**_ENDS, "out.2": "conv_out"})))
    generator.encoder.load_state_dict(dict(_renamed(encoder, {"out.0": "norm_out", "out.3": "out"})))
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
        module, kind = name.rsplit(".", 1)
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


def _set_statistics(generator: DiffusionAutoencoder, path: Path, state: Mapping[str, Any]) -> None:
    for beside in (path.with_name(name) for name in _STATISTICS):
        if beside.exists():
            content = _load(beside)
            z_sem = content.get("conds") if isinstance(content, Mapping) else None
            if not isinstance(z_sem, Tensor) or z_sem.ndim != 2 or z_sem.shape[1] != generator.mapper_input_dim:
                raise ZeroshiftError(f"{beside} holds no z_sem of width {generator.mapper_input_dim} for {path.name}.")
            generator.fit_statistics(z_sem.float())
            return
    if isinstance(state.get("conds_mean"), Tensor) and isinstance(state.get("conds_std"), Tensor):
        generator.z_mean.copy_(state["conds_mean"].flatten())
        generator.z_factor.copy_(state["conds_std"].flatten().diag())
        return
    warnings.warn(
        f"There is no {_STATISTICS[0]} beside {path}, with the statistics of z_sem. Real images can be translated, but "
        "sampled images will look unrealistic. Download it from the folder of the checkpoint.",
        stacklevel=4,
    )


def _load(path: Path) -> Any:
    """Tensors and plain data in a file of torch.save. Tensors are memory-mapped."""
    try:
        unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        for name in unknown:
            if name.split(".")[0] not in _INERT:
                raise ZeroshiftError(
                    f"{path} asks for {name}, which no diffusion autoencoder needs: it may belong to another program "
                    "or be malicious. Nothing in it was executed."
                )
        with torch.serialization.safe_globals([_inert(name) for name in unknown]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except ZeroshiftError:
        raise
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ZeroshiftError(f"{path} is damaged: it cannot be read ({type(error).__name__}: {error}).") from error


def _inert(name: str) -> type:
    """A class for a name in the file that accepts anything and does nothing."""
    module, _, class_name = name.rpartition(".")
    return type(class_name, (), {"__module__": module, "__init__": lambda *_: None, "__setstate__": lambda *_: None})
