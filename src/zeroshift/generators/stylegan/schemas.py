"""The ranges of the settings of StyleGAN generators that come from files."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["StyleGAN2Settings", "StyleGAN3Settings"]

Width = Annotated[int, Field(ge=1, le=8192)]  # of a latent or w, or number of channels
Classes = Annotated[int, Field(ge=0, le=10_000)]
Depth = Annotated[int, Field(ge=1, le=64)]
Clamp = Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
Multiplier = Annotated[float, Field(gt=0, le=100)]


class _Settings(BaseModel):
    """The constructor arguments that both have."""

    model_config = ConfigDict(extra="forbid", strict=True)

    resolution: int = Field(ge=4, le=4096)
    z_dim: Width = 512
    w_dim: Width = 512
    num_classes: Classes = 0
    mapping_lr_mul: Multiplier = 0.01


class StyleGAN2Settings(_Settings):
    """The constructor arguments of `StyleGAN2`."""

    mapping_layers: Depth = 8
    channels: Annotated[dict[int | str, Width], Field(max_length=11)] | None = None
    mapping_features: Width | None = None
    embed_features: Width | None = None
    conv_clamp: Clamp = None


class StyleGAN3Settings(_Settings):
    """The constructor arguments of `StyleGAN3`."""

    mapping_layers: Depth = 2
    channel_base: int = Field(32768, ge=1, le=2**22)
    channel_max: Width = 512
    num_layers: int = Field(14, ge=2, le=64)
    num_critical: int = Field(2, ge=1, le=64)
    first_cutoff: float = Field(2, ge=0.25, le=256)
    first_stopband: float = Field(2**2.1, ge=0.25, le=1024)
    last_stopband_rel: float = Field(2**0.3, ge=0.25, le=16)
    margin_size: int = Field(10, ge=0, le=64)
    output_scale: float = Field(0.25, ge=-1e6, le=1e6)
    conv_kernel: int = Field(3, ge=1, le=9)
    filter_size: int = Field(6, ge=2, le=32)
    lrelu_upsampling: int = Field(2, ge=2, le=8)
    radial: bool = False
    conv_clamp: Clamp = 256
