"""StyleGAN3 (Karras et al., 2021), configurations T and R, in plain PyTorch: the same code on CPU and GPU.

Parameters have the names of the published program, so its state dict fits, except filters, which are recomputed.
"""

from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import NOISE_MODES, Codes, Generator
from zeroshift.generators.stylegan.base import StyleBased
from zeroshift.generators.stylegan.blocks import Mapping
from zeroshift.generators.stylegan.schemas import StyleGAN3Settings
from zeroshift.generators.stylegan.stylegan3_synthesis import StyleGAN3Synthesis, plan_bands
from zeroshift.io.foreign import matches

__all__ = ["StyleGAN3"]


class StyleGAN3(StyleBased):
    """StyleGAN3 generator. Configuration T is the default; R has conv_kernel=1, radial=True and twice the channels.

    Args:
        resolution: image size in pixels.
        z_dim, w_dim: widths of the latent and of w.
        num_classes: number of classes of a conditional mapping network; 0: unconditional.
        mapping_layers, mapping_lr_mul: depth and learning-rate multiplier of the mapping network.
        channel_base, channel_max: a layer with cutoff f has min(channel_base / (2 f), channel_max) channels.
        num_layers, num_critical: layers between Fourier features and RGB layer, and the number of critically sampled
            ones at their end.
        first_cutoff, first_stopband: of the first layer, in cycles per image.
        last_stopband_rel: stopband of the last layer, relative to its cutoff.
        margin_size: margin around the image in pixels.
        output_scale: factor by which the image is multiplied.
        conv_kernel: kernel size of the convolutions.
        filter_size: filter taps, relative to the lower of the two sampling rates.
        lrelu_upsampling: sampling rate of the leaky ReLU, relative to the rates around it.
        radial: whether the downsampling filters are radially symmetric.
        conv_clamp: bound on every layer's output; None: no bound.

    Raises:
        ZeroshiftError: sizes that do not fit a StyleGAN3.
    """

    architecture = "stylegan3"
    unused_settings = StyleBased.unused_settings | {"adapt.noise_mode"}
    exports: ClassVar[MappingType[str, str]] = {
        "nvidia-pkl": "zeroshift.generators.checkpoints.nvidia_pickle:write_nvidia_pickle",
        "onnx": "zeroshift.generators.checkpoints.network_files:write_onnx_stylegan",
        "torch-export": "zeroshift.generators.checkpoints.network_files:write_torch_stylegan",
    }
    export_suffix: ClassVar[MappingType[str, str]] = {"nvidia-pkl": ".pkl"}

    def __init__(
        self,
        resolution: int,
        z_dim: int = 512,
        w_dim: int = 512,
        num_classes: int = 0,
        mapping_layers: int = 2,
        mapping_lr_mul: float = 0.01,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_layers: int = 14,
        num_critical: int = 2,
        first_cutoff: float = 2,
        first_stopband: float = 2**2.1,
        last_stopband_rel: float = 2**0.3,
        margin_size: int = 10,
        output_scale: float = 0.25,
        conv_kernel: int = 3,
        filter_size: int = 6,
        lrelu_upsampling: int = 2,
        radial: bool = False,
        conv_clamp: float | None = 256,
    ):
        super().__init__()
        self.config = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        if min(z_dim, w_dim, mapping_layers, channel_base, channel_max, conv_kernel, num_critical) < 1 or (
            resolution <= 2 * first_cutoff or num_layers <= num_critical or min(filter_size, lrelu_upsampling) < 2
        ):
            raise ZeroshiftError(f"These sizes do not fit a StyleGAN3: {self.config}.")
        self.resolution, self.mapper_input_dim, self.latent_shape = resolution, w_dim, (z_dim,)
        self.num_classes, self.num_ws = num_classes, num_layers + 2
        self.mapping = Mapping(z_dim, w_dim, num_classes, mapping_layers, lr_mul=mapping_lr_mul)
        bands = plan_bands(
            resolution,
            channel_base,
            channel_max,
            num_layers,
            num_critical,
            first_cutoff,
            first_stopband,
            last_stopband_rel,
            margin_size,
        )
        self.synthesis = StyleGAN3Synthesis(
            w_dim,
            bands,
            num_critical=num_critical,
            output_scale=output_scale,
            radial=radial,
            clamp=conv_clamp,
            kernel=conv_kernel,
            filter_size=filter_size,
            lrelu_upsampling=lrelu_upsampling,
        )

    @classmethod
    def from_config(cls, config: MappingType[str, Any], module: nn.Module | None = None) -> Generator:
        """As `Generator.from_config`. Sizes beyond those of any known model are refused."""
        matches(StyleGAN3Settings, dict(config), "The description of a StyleGAN3")
        return super().from_config(config, module)

    def synthesize(
        self, codes: Codes, *, noise_mode: str = "const", noise_seed: int = 0, samples: Sequence[int] | None = None
    ) -> Tensor:
        """Images [N, 3, resolution, resolution] of ws [N, num_ws, w_dim]. StyleGAN3 has no noise: all modes agree."""
        if noise_mode not in NOISE_MODES:
            raise ZeroshiftError(f"Unknown noise mode {noise_mode!r}: choose one of {', '.join(NOISE_MODES)}.")
        if codes.shape[1:] != (self.num_ws, self.mapper_input_dim):
            raise ZeroshiftError(f"Codes must be [N, {self.num_ws}, {self.mapper_input_dim}], not {list(codes.shape)}.")
        images: Tensor = self.synthesis(codes)
        return images

    def layers(self) -> dict[str, nn.Module]:
        """The Fourier input, the filtered convolutions and the RGB layer, input to output."""
        return {f"synthesis.{name}": module for name, module in self.synthesis.named_children()}

    def layer_candidates(self) -> list[str]:
        """Row i of ws votes for layer i, the Fourier input being layer 0."""
        return list(self.layers())
