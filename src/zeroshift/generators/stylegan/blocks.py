"""Building blocks of the StyleGAN generators: equalized layers, the mapping network, [1, 3, 3, 1] filters."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zeroshift.core.dtypes import at_least_float32
from zeroshift.errors import ZeroshiftError

__all__ = [
    "EqualLinear",
    "Mapping",
    "blur",
    "normalize_second_moment",
    "pixel_product",
    "recomputed",
    "resampling_filter",
    "upsample",
]

Outputs = TypeVar("Outputs")


def normalize_second_moment(x: Tensor) -> Tensor:
    """Rows of x [N, D] scaled to mean square one ("PixelNorm": Karras et al., 2018, section 4.2)."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class EqualLinear(nn.Module):
    """Linear layer with equalized learning rate (Karras et al., 2018, section 4.1), computed in at least float32.

    Stored weights have unit scale / lr_mul and are multiplied by lr_mul / sqrt(fan-in) at run time, the bias by lr_mul.
    With `activate`, leaky ReLU 0.2 times sqrt(2) follows.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias_init: float = 0.0,
        lr_mul: float = 1.0,
        activate: bool = False,
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_mul)
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init)))
        self.weight_gain, self.bias_gain, self.activate = lr_mul / math.sqrt(in_features), lr_mul, activate

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_features] -> [N, out_features]."""
        with torch.autocast(x.device.type, enabled=False):
            x, weight, bias = (at_least_float32(tensor) for tensor in (x, self.weight, self.bias))
            x = torch.addmm(
                bias if self.bias_gain == 1 else bias * self.bias_gain, x, weight.t(), alpha=self.weight_gain
            )
            return F.leaky_relu(x, 0.2) * math.sqrt(2) if self.activate else x


class Mapping(nn.Module):
    """Mapping network z -> w of StyleGAN2(-ADA) and StyleGAN3, with its average w (`w_avg`).

    z and the embedded class label are each normalized to unit second moment and concatenated.
    """

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        w_dim: int,
        num_classes: int = 0,
        num_layers: int = 8,
        *,
        features: int | None = None,
        embed_features: int | None = None,
        lr_mul: float = 0.01,
    ):
        super().__init__()
        self.num_classes, self.num_layers = num_classes, num_layers
        embed_features = (embed_features or w_dim) if num_classes else 0
        widths = [z_dim + embed_features, *[features or w_dim] * (num_layers - 1), w_dim]
        if num_classes:
            self.embed = EqualLinear(num_classes, embed_features)
        for index in range(num_layers):
            layer = EqualLinear(widths[index], widths[index + 1], lr_mul=lr_mul, activate=True)
            self.add_module(f"fc{index}", layer)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """z [N, z_dim], labels (class indices [N] or rows [N, num_classes]) -> w [N, w_dim]."""
        x = normalize_second_moment(at_least_float32(z))
        if self.num_classes:
            x = torch.cat([x, normalize_second_moment(self.embed(self._rows(labels, z.shape[0]).to(z.device)))], dim=1)
        elif labels is not None and labels.numel():
            raise ZeroshiftError("This generator has no classes. Leave the labels out.")
        for index in range(self.num_layers):
            x = self.get_submodule(f"fc{index}")(x)
        return x

    def _rows(self, labels: Tensor | None, count: int) -> Tensor:
        if labels is None:
            raise ZeroshiftError(f"This generator is class-conditional. Give labels of its {self.num_classes} classes.")
        if labels.ndim == 1 and not labels.is_floating_point():
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
                raise ZeroshiftError(f"Class labels must lie between 0 and {self.num_classes - 1}.")
            labels = F.one_hot(labels.long(), self.num_classes)
        if labels.shape != (count, self.num_classes):
            raise ZeroshiftError(
                f"Labels of shape {tuple(labels.shape)} do not fit {count} latents and {self.num_classes} classes."
            )
        return labels.to(self.embed.weight.dtype)


def recomputed(enabled: bool, function: Callable[..., Outputs], *arguments: Any) -> Outputs:
    """`function(*arguments)`; if enabled, its activations are computed again in the backward pass instead of kept."""
    if not (enabled and torch.is_grad_enabled()):
        return function(*arguments)
    outputs: Outputs = checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
    return outputs


def resampling_filter() -> Tensor:
    """[1, 3, 3, 1] x [1, 3, 3, 1] with sum 4, so that doubling the size keeps the brightness: [4, 4]."""
    taps = torch.tensor([0.25, 0.75, 0.75, 0.25])
    return torch.outer(taps, taps)


def upsample(x: Tensor, kernel: Tensor) -> Tensor:
    """Doubles an image with a [4, 4] filter and zeros outside: [N, C, H, W] -> [N, C, 2H, 2W]."""
    channels = x.shape[1]
    with torch.autocast(x.device.type, enabled=False):  # the image keeps its precision
        return F.conv_transpose2d(x, kernel.to(x.dtype).expand(channels, 1, 4, 4), stride=2, padding=1, groups=channels)


def pixel_product(x: Tensor, kernels: Tensor) -> Tensor:
    """Each sample's pixels times its own few columns: [N, pixels, C] @ [N, C, D] -> [N, pixels, D]."""
    return _PixelProduct.apply(x, kernels) if torch.is_grad_enabled() else x @ kernels


class _PixelProduct(torch.autograd.Function):
    """`pixel_product`; the gradient of the kernels is computed as a transpose, for which MKL is 20 times faster."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernels: Tensor) -> Tensor:
        ctx.save_for_backward(x, kernels)
        return x @ kernels

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, kernels = ctx.saved_tensors
        by_x = gradient @ kernels.transpose(1, 2) if ctx.needs_input_grad[0] else None
        by_kernels = (gradient.transpose(1, 2) @ x).transpose(1, 2) if ctx.needs_input_grad[1] else None
        return by_x, by_kernels


def blur(x: Tensor, kernel: Tensor) -> Tensor:
    """Filters the output of a stride-2 transposed convolution: [N, C, 2H+1, 2W+1] -> [N, C, 2H, 2W]."""
    channels = x.shape[1]
    return F.conv2d(x, kernel.to(x.dtype).expand(channels, 1, 4, 4), padding=1, groups=channels)
