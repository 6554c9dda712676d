"""Converts published StyleGAN2 weights, as dictionaries of arrays, to our generator and back.

Both published layouts store the same numbers: equalized weights of unit scale, the transposed kernels of upsampling
convolutions unflipped, per-layer gains outside the weights. They differ in names, some leading axes of size one, and
the settings that a program supports.
"""

import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zeroshift.core.rng import normal
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.claims import listed
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2

__all__ = ["stylegan2_from_nvidia", "stylegan2_from_rosinality", "stylegan2_to_rosinality"]

StateDict = Mapping[str, Tensor | np.ndarray]
Ignorable = Callable[[str], bool]

_FILTER = (1.0, 3.0, 3.0, 1.0)  # the only resampling filter of both programs
_SETTINGS = {
    "activation": "lrelu",
    "architecture": "skip",
    "resample_filter": list(_FILTER),
}  # the only ones we support
_MAY_BE_MISSING = ("noise_strength", "noise_const", "mapping.w_avg")


def stylegan2_from_nvidia(
    state_dict: StateDict, init_kwargs: Mapping[str, Any] | None = None, may_ignore: Ignorable = lambda name: False
) -> StyleGAN2:
    """A generator from the weights of stylegan2-ada-pytorch's `Generator` (G or G_ema), in evaluation mode.

    Size, channels, depth and classes come from the shapes; `conv_clamp` and `lr_multiplier` from `init_kwargs`, the
    published constructor arguments. Layers without noise get strength 0. A missing `mapping.w_avg` is estimated.
    Unknown weights for which `may_ignore` holds are left out with a warning.

    Raises:
        ZeroshiftError: other weights, an architecture other than "skip", or other filters or activations.
    """
    weights = _tensors(state_dict)
    mapping_kwargs = dict((init_kwargs or {}).get("mapping_kwargs") or {})
    # stylegan2-ada-pytorch groups the settings of the synthesis network; the StyleGAN2 of stylegan3 does not.
    synthesis_kwargs = {**(init_kwargs or {}), **((init_kwargs or {}).get("synthesis_kwargs") or {})}
    for key, value in [*mapping_kwargs.items(), *synthesis_kwargs.items()]:
        if key in _SETTINGS and (list(value) if isinstance(value, (list, tuple)) else value) != _SETTINGS[key]:
            raise ZeroshiftError(f"This StyleGAN2 has {key} = {value!r:.60}; only {_SETTINGS[key]!r} is supported.")
    for name in ("resample_filter", "filter"):  # of NVIDIA's programs, and of our pickles for them
        _take_filters(weights, name)
    if "synthesis.b4.const" not in weights:
        raise ZeroshiftError("These are not weights of an NVIDIA StyleGAN2 generator: synthesis.b4.const is missing.")
    weights["synthesis.input.const"] = weights.pop("synthesis.b4.const")

    sizes = sorted(_numbers(weights, r"synthesis\.b(\d{1,5})\.conv1\.weight"))
    depth = len(_numbers(weights, r"mapping\.fc(\d{1,5})\.weight"))
    embed_features, num_classes = (
        _shape(weights, "mapping.embed.weight", 2) if "mapping.embed.weight" in weights else (0, 0)
    )
    w_dim, _ = _shape(weights, f"mapping.fc{depth - 1}.weight", 2)
    features, first_in = _shape(weights, "mapping.fc0.weight", 2)
    config = {
        "resolution": max(sizes, default=0),
        "z_dim": first_in - embed_features,
        "w_dim": w_dim,
        "num_classes": num_classes,
        "mapping_layers": depth,
        "channels": {size: _shape(weights, f"synthesis.b{size}.conv1.weight", 4)[0] for size in sizes},
        "mapping_features": None if features == w_dim else features,
        "embed_features": None if embed_features in (0, w_dim) else embed_features,
        "mapping_lr_mul": mapping_kwargs.get("lr_multiplier", 0.01),
        "conv_clamp": synthesis_kwargs.get("conv_clamp"),
    }
    return _filled(config, weights, may_ignore)


def stylegan2_from_rosinality(
    state_dict: StateDict, latent_avg: Tensor | np.ndarray | None = None, may_ignore: Ignorable = lambda name: False
) -> StyleGAN2:
    """A generator from the weights of rosinality's stylegan2-pytorch `Generator`, in evaluation mode.

    Size, channel multiplier, depth and style width come from the shapes. `latent_avg` is the mean w: one row, or one
    row per layer as in the e4e and ReStyle programs; None: it is estimated. Unknown weights for which `may_ignore`
    holds are left out with a warning.

    Raises:
        ZeroshiftError: other weights.
    """
    weights = _tensors(state_dict)
    _take_filters(weights, "kernel")
    depth = len(_numbers(weights, r"style\.(\d{1,5})\.weight"))
    num_convs = len(_numbers(weights, r"convs\.(\d{1,5})\.conv\.weight"))
    if "input.input" not in weights or depth == 0 or num_convs % 2:
        raise ZeroshiftError(
            "These are not weights of rosinality's StyleGAN2 generator: input.input, style or convs are missing."
        )
    sizes = [4 << power for power in range(num_convs // 2 + 1)]
    last_convs = ["conv1", *(f"convs.{index}" for index in range(1, num_convs, 2))]  # of each size
    w_dim = _shape(weights, f"style.{depth}.weight", 2)[0]
    config = {
        "resolution": sizes[-1],
        "z_dim": _shape(weights, "style.1.weight", 2)[1],
        "w_dim": w_dim,
        "mapping_layers": depth,
        "channels": {
            size: _shape(weights, f"{conv}.conv.weight", 5)[1] for size, conv in zip(sizes, last_convs, strict=True)
        },
    }
    names = _rosinality_names(sizes, depth)
    ours = {names.get(published) or published: value for published, value in weights.items()}
    if latent_avg is not None:
        rows = torch.as_tensor(latent_avg, dtype=torch.float32)
        if not rows.numel() or rows.numel() % w_dim:
            raise ZeroshiftError(f"latent_avg of shape {list(rows.shape)} does not fit a style width of {w_dim}.")
        ours["mapping.w_avg"] = rows.reshape(-1, w_dim).mean(dim=0)
    return _filled(config, ours, may_ignore)


def stylegan2_to_rosinality(generator: StyleGAN2) -> dict[str, Tensor]:
    """The state dict of rosinality's `Generator`: its names, shapes and order, filters and noise images included.

    The average w is not part of it; published files store it separately, as `latent_avg`.

    Raises:
        ZeroshiftError: settings that rosinality's program does not support.
    """
    _check_fits_rosinality(generator)
    sizes = [int(size) for size in generator.config["channels"]]
    kernel = torch.outer(torch.tensor(_FILTER), torch.tensor(_FILTER)) / 16
    ours = {name: value.detach().cpu().float() for name, value in generator.state_dict().items()}
    return {
        published: kernel.clone() if name is None else ours[name].reshape(_rosinality_shape(name, ours[name])).clone()
        for published, name in _rosinality_names(sizes, generator.config["mapping_layers"]).items()
    }


def _rosinality_names(sizes: list[int], depth: int) -> dict[str, str | None]:
    """Published name -> our name, in the published order; None for filters."""
    names: dict[str, str | None] = {}
    for index in range(depth):
        names |= {f"style.{index + 1}.{part}": f"mapping.fc{index}.{part}" for part in ("weight", "bias")}
    names["input.input"] = "synthesis.input.const"

    def conv(published: str, ours: str) -> None:
        names[f"{published}.conv.weight"] = f"{ours}.weight"
        if ours.endswith("conv0"):
            names[f"{published}.conv.blur.kernel"] = None
        names.update({f"{published}.conv.modulation.{part}": f"{ours}.affine.{part}" for part in ("weight", "bias")})
        names[f"{published}.noise.weight"] = f"{ours}.noise_strength"
        names[f"{published}.activate.bias"] = f"{ours}.bias"

    def to_rgb(published: str, ours: str) -> None:
        names[f"{published}.bias"] = f"{ours}.bias"
        if published != "to_rgb1":
            names[f"{published}.upsample.kernel"] = None
        names[f"{published}.conv.weight"] = f"{ours}.weight"
        names.update({f"{published}.conv.modulation.{part}": f"{ours}.affine.{part}" for part in ("weight", "bias")})

    convs = [f"synthesis.b{size}.conv{index}" for size in sizes[1:] for index in (0, 1)]
    conv("conv1", "synthesis.b4.conv1")
    to_rgb("to_rgb1", "synthesis.b4.torgb")
    for index, ours in enumerate(convs):
        conv(f"convs.{index}", ours)
    for index, size in enumerate(sizes[1:]):
        to_rgb(f"to_rgbs.{index}", f"synthesis.b{size}.torgb")
    for index, ours in enumerate(["synthesis.b4.conv1", *convs]):
        names[f"noises.noise_{index}"] = f"{ours}.noise_const"
    return names


def _rosinality_shape(name: str, value: Tensor) -> tuple[int, ...]:
    """The published shape of our parameter. Kernels, constant and noise images have leading axes of size one."""
    if name.endswith("noise_const"):
        return (1, 1, *value.shape)
    if name.endswith("torgb.bias"):
        return (1, *value.shape, 1, 1)
    if name.endswith((".const", ".noise_strength")) or value.ndim == 4:
        return (1, *value.shape)
    return tuple(value.shape)


def _check_fits_rosinality(generator: StyleGAN2) -> None:
    config = generator.config
    width = config["w_dim"]
    problems = {
        "class labels": config["num_classes"] > 0,
        f"z and w of different widths ({config['z_dim']} and {width})": config["z_dim"] != width,
        "a mapping network with another hidden width": config["mapping_features"] not in (None, width),
        f"a learning-rate multiplier of {config['mapping_lr_mul']}": config["mapping_lr_mul"] != 0.01,
        f"conv_clamp = {config['conv_clamp']}": config["conv_clamp"] is not None,
    }
    channels = {int(size): count for size, count in config["channels"].items()}
    multiplier = max(1, channels[generator.resolution] * generator.resolution // 16384)  # any, up to 32 pixels
    fitting = {size: 512 if size <= 32 else 16384 // size * multiplier for size in channels}
    problems[f"channels {channels} instead of {fitting}"] = channels != fitting
    unsupported = [problem for problem, holds in problems.items() if holds]
    if unsupported:
        raise ZeroshiftError(
            f"rosinality's program does not support {'; '.join(unsupported)}. Export as safetensors instead."
        )


def _tensors(state_dict: StateDict) -> dict[str, Tensor]:
    try:
        return {
            str(name): value if isinstance(value, Tensor) else torch.tensor(value) for name, value in state_dict.items()
        }
    except (TypeError, ValueError, RuntimeError) as error:
        raise ZeroshiftError("These weights are not all arrays of numbers.") from error


def _numbers(weights: StateDict, pattern: str) -> list[int]:
    return [int(match[1]) for name in weights if (match := re.fullmatch(pattern, name))]


def _shape(weights: Mapping[str, Tensor], name: str, ndim: int) -> tuple[int, ...]:
    if name not in weights or weights[name].ndim != ndim:
        raise ZeroshiftError(f"These are not weights of a StyleGAN2 generator: there is no {name} with {ndim} axes.")
    return tuple(weights[name].shape)


def _take_filters(weights: dict[str, Tensor], suffix: str) -> None:
    """Removes the resampling filters, after checking that they are the built-in one."""
    expected = torch.outer(torch.tensor(_FILTER), torch.tensor(_FILTER)) / 64
    for name in [name for name in weights if name.endswith(f".{suffix}")]:
        taps = weights.pop(name).float()
        if taps.shape != expected.shape or not torch.allclose(taps / taps.sum(), expected, atol=1e-4):
            raise ZeroshiftError(f"{name} is not the [1, 3, 3, 1] filter, the only one that is supported.")


def _filled(config: Mapping[str, Any], weights: dict[str, Tensor], may_ignore: Ignorable) -> StyleGAN2:
    """The generator with `weights` (our names; axes of size one may differ) and with what published files may lack."""
    expected = StyleGAN2.weight_shapes(config)
    ignored = sorted(name for name in weights if name not in expected and may_ignore(name))
    if ignored:
        warnings.warn(f"Left out what a StyleGAN2 does not have: {listed(ignored)}.", stacklevel=3)
        weights = {name: value for name, value in weights.items() if name not in ignored}
    missing = [name for name in expected if name not in weights and not name.endswith(_MAY_BE_MISSING)]
    actual = {name: value for name, value in weights.items() if name in expected}
    unfit = [
        f"{name} {list(value.shape)} (expected {list(expected[name])})"
        for name, value in actual.items()
        if [size for size in value.shape if size != 1] != [size for size in expected[name] if size != 1]
    ]
    wrong = [*sorted(set(weights) - set(expected)), *unfit, *(f"{name} (missing)" for name in missing)]
    if wrong:
        raise ZeroshiftError(f"These weights do not fit a StyleGAN2 generator: {listed(wrong)}.")
    generator = StyleGAN2(**config)
    for name, value in generator.state_dict().items():
        if name in weights:
            value.copy_(weights[name].reshape(value.shape))
        elif name.endswith("noise_strength"):
            value.zero_()
        elif name.endswith("noise_const"):
            value.copy_(normal(value.shape, "noise_const", name, samples=[0])[0])
    if "mapping.w_avg" not in weights:
        generator.mapping.w_avg.copy_(generator.average_w())
    return generator.eval()
