"""Source code of our StyleGANs as one module, for pickles that carry the code of their networks with them.

NVIDIA's programs execute the source text that a pickle holds. Here it is the text of our own classes, adapted so that
it runs with the versions of Python and PyTorch that these programs were written for, and with their interface on top:
`G(z, c)`, `G.mapping(z, c)`, `G.synthesis(ws)`, the names of weights, `init_kwargs`.
"""

import inspect
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from zeroshift.core import dtypes
from zeroshift.generators.stylegan import blocks, stylegan2, stylegan3_filters, stylegan3_synthesis
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.generators.stylegan.stylegan3 import StyleGAN3

__all__ = ["network_module", "nvidia_network", "stylegan2_source", "stylegan3_source"]

_HEAD = '''"""{title} in plain PyTorch, from zeroshift (MIT license). No code of NVIDIA's programs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ZeroshiftError(ValueError):
    """Wrong sizes or labels."""


class _Plain:
    """Stands for autocast by device, which old versions of PyTorch lack: everything is computed in float32."""

    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        pass

    def __exit__(self, *_):
        pass


def recomputed(enabled, function, *arguments):
    """The result of a function. zeroshift itself can compute its activations again in the backward pass."""
    return function(*arguments)
'''
_MAPPING = '''
class MappingNetwork(Mapping):
    """z [N, z_dim], c [N, c_dim] -> ws [N, num_ws, w_dim]."""

    def __init__(self, z_dim, c_dim, w_dim, num_ws, num_layers=8, layer_features=None, embed_features=None,
                 lr_multiplier=0.01, **_):
        super().__init__(z_dim, w_dim, c_dim, num_layers, features=layer_features, embed_features=embed_features,
                         lr_mul=lr_multiplier)
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, c_dim, w_dim, num_ws

    def forward(self, z, c=None, truncation_psi=1, truncation_cutoff=None, **_):
        w = super().forward(z, c if self.c_dim else None)
        ws = w.unsqueeze(1).repeat(1, self.num_ws, 1)
        if truncation_psi != 1:
            cutoff = self.num_ws if truncation_cutoff is None else truncation_cutoff
            ws[:, :cutoff] = self.w_avg + truncation_psi * (ws[:, :cutoff] - self.w_avg)
        return ws


class Generator(nn.Module):
    """z [N, z_dim], c [N, c_dim] -> images [N, 3, img_resolution, img_resolution] around [-1, 1]."""

    def __init__(self, z_dim, c_dim, w_dim, img_resolution, img_channels=3, mapping_kwargs=None, **synthesis_kwargs):
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.synthesis = SynthesisNetwork(w_dim=w_dim, img_resolution=img_resolution, img_channels=img_channels,
                                          **{**synthesis_kwargs, **synthesis_kwargs.pop("synthesis_kwargs", {})})
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, **(mapping_kwargs or {}))

    def forward(self, z, c=None, truncation_psi=1, truncation_cutoff=None, **options):
        ws = self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff)
        return self.synthesis(ws, **options)
'''
_SYNTHESIS_2 = '''
class SynthesisNetwork(StyleGAN2Synthesis):
    """ws [N, num_ws, w_dim] -> images."""

    def __init__(self, w_dim, img_resolution, img_channels, channels, conv_clamp=None, **_):
        super().__init__(img_resolution, w_dim, {int(size): width for size, width in channels.items()}, conv_clamp)
        self.w_dim, self.img_resolution, self.img_channels = w_dim, img_resolution, img_channels
        self.block_resolutions, self.num_ws = list(self.sizes), 2 * len(self.sizes)
        self.b4.const = self._modules.pop("input").const  # as NVIDIA's programs name it

    def start(self, batch):
        return self.b4.const.expand(batch, -1, -1, -1).contiguous(memory_format=torch.channels_last)

    def forward(self, ws, noise_mode="random", **_):
        assert noise_mode in ["random", "const", "none"]
        noises = []
        for conv in self.convs():
            noise = None if noise_mode == "none" else conv.noise_const
            if noise_mode == "random":
                noise = torch.randn([ws.shape[0], 1, *noise.shape], device=ws.device)
            noises.append(noise)
        return super().forward(ws.to(torch.float32), noises)
'''
_SYNTHESIS_3 = '''
class SynthesisNetwork(StyleGAN3Synthesis):
    """ws [N, num_ws, w_dim] -> images."""

    def __init__(self, w_dim, img_resolution, img_channels, channel_base=32768, channel_max=512, num_layers=14,
                 num_critical=2, first_cutoff=2, first_stopband=2**2.1, last_stopband_rel=2**0.3, margin_size=10,
                 output_scale=0.25, conv_kernel=3, filter_size=6, lrelu_upsampling=2, use_radial_filters=False,
                 conv_clamp=256, **_):
        bands = plan_bands(img_resolution, channel_base, channel_max, num_layers, num_critical, first_cutoff,
                           first_stopband, last_stopband_rel, margin_size)
        super().__init__(w_dim, bands, num_critical=num_critical, output_scale=output_scale,
                         radial=use_radial_filters, clamp=conv_clamp, kernel=conv_kernel, filter_size=filter_size,
                         lrelu_upsampling=lrelu_upsampling)
        self.w_dim, self.img_resolution, self.img_channels = w_dim, img_resolution, img_channels
        self.num_ws = num_layers + 2

    def forward(self, ws, **_):
        return super().forward(ws)
'''


def stylegan2_source() -> str:
    """The module of a StyleGAN2."""
    return _assembled(
        "StyleGAN2 (Karras et al., 2020)",
        [
            dtypes.at_least_float32, blocks.normalize_second_moment, blocks.EqualLinear, blocks.Mapping,
            blocks.resampling_filter, blocks.upsample, blocks._PixelProduct, blocks.pixel_product, blocks.blur,
            stylegan2.Constant, stylegan2.StyledConv, stylegan2.StyleGAN2ToRGB, stylegan2.Block,
            stylegan2.StyleGAN2Synthesis,
        ],
        _SYNTHESIS_2,
    )  # fmt: skip


def stylegan3_source() -> str:
    """The module of a StyleGAN3."""
    constants = f"\n_MAX_STEP = {stylegan3_synthesis._MAX_STEP}\n_MAX_WIDTH = {stylegan3_synthesis._MAX_WIDTH}\n"
    return _assembled(
        "StyleGAN3 (Karras et al., 2021)",
        [
            dtypes.at_least_float32, blocks.normalize_second_moment, blocks.EqualLinear, blocks.Mapping,
            stylegan3_filters.design_lowpass, stylegan3_filters._kaiser_beta, stylegan3_filters.upsample,
            stylegan3_filters.downsample, stylegan3_synthesis.Band, stylegan3_synthesis.plan_bands,
            stylegan3_synthesis.FourierInput, stylegan3_synthesis.FilteredConv, stylegan3_synthesis.StyleGAN3ToRGB,
            stylegan3_synthesis.StyleGAN3Synthesis,
        ],
        constants + _SYNTHESIS_3,
    )  # fmt: skip


def _assembled(title: str, parts: Sequence[Callable[..., Any]], synthesis: str) -> str:
    source = "\n\n".join([_HEAD.format(title=title), *map(inspect.getsource, parts), synthesis, _MAPPING])
    # Newer than the Python 3.7 and PyTorch 1.7 of NVIDIA's first program:
    source = source.replace("torch.autocast(", "_Plain(").replace(", strict=True)", ")")
    return source.replace("x = self.input(batch)", "x = self.start(batch)")  # `input` means StyleGAN3 to these programs


def network_module(source: str) -> types.ModuleType:
    """A module with this source text, as NVIDIA's programs make one. Its classes can be built and called."""
    module = types.ModuleType("zeroshift_nvidia_network")
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module  # dataclasses look it up
    try:
        exec(compile(source, module.__name__, "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]
        if before is not None:
            sys.modules[module.__name__] = before
    return module


def nvidia_network(generator: StyleGAN2 | StyleGAN3) -> tuple[nn.Module, str]:
    """A copy of a generator as a network with the interface of NVIDIA's programs, and the source of its classes."""
    config = generator.config
    arguments: dict[str, Any] = {
        "z_dim": config["z_dim"],
        "c_dim": config["num_classes"],
        "w_dim": config["w_dim"],
        "img_resolution": config["resolution"],
        "img_channels": 3,
        "mapping_kwargs": {"num_layers": config["mapping_layers"], "lr_multiplier": config["mapping_lr_mul"]},
    }
    if isinstance(generator, StyleGAN2):
        source = stylegan2_source()
        arguments["mapping_kwargs"] |= {
            "layer_features": config["mapping_features"],
            "embed_features": config["embed_features"],
        }
        arguments |= {"channels": config["channels"], "conv_clamp": config["conv_clamp"]}
    else:
        source = stylegan3_source()
        names = (
            "channel_base", "channel_max", "num_layers", "num_critical", "first_cutoff", "first_stopband",
            "last_stopband_rel", "margin_size", "output_scale", "conv_kernel", "filter_size", "lrelu_upsampling",
            "conv_clamp",
        )  # fmt: skip
        arguments |= {name: config[name] for name in names} | {"use_radial_filters": config["radial"]}
    network: nn.Module = network_module(source).Generator(**arguments)
    state = {name.replace("synthesis.input.const", "synthesis.b4.const"): value for name, value in
             generator.state_dict().items()}  # fmt: skip
    with torch.no_grad():
        network.load_state_dict(state)
    network._init_args, network._init_kwargs = (), arguments  # type: ignore[assignment]  # as their decorator does
    return network.eval().requires_grad_(False), source
