"""The ranges of the settings of diffusion models that come from files, and what differs between programs in them.

Each function takes a configuration as JSON, drops what the network does not read, and returns constructor arguments of
a class of diffusers. The limits are far above those of published models and far below those that exhaust a machine.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from zeroshift.errors import ZeroshiftError
from zeroshift.io.foreign import matches

__all__ = ["DECODERS", "MAX_RESOLUTION", "AutoencoderSettings", "decoder_config", "schedule_config", "unet_config"]

DECODERS = ("VQModel", "AutoencoderKL")
MAX_RESOLUTION = 8192
_MAX_LEVELS = 100_000  # of noise

Flag = Annotated[bool, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e6, le=1e6)]
Positive = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=1e-6, le=1e6)]
Share = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, lt=1)]
Beta = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0, lt=1)]
Width = Annotated[int, Field(strict=True, ge=1, le=16384)]  # number of channels
Groups = Annotated[int, Field(strict=True, ge=1, le=4096)]
Size = Annotated[int, Field(strict=True, ge=1, le=2048)]  # of images or latents
Levels = Annotated[int, Field(strict=True, ge=1, le=_MAX_LEVELS)]
Depth = Annotated[int, Field(strict=True, ge=1, le=8)]
Block = Annotated[str, Field(strict=True, max_length=64)]  # a class of diffusers, which knows its names
Widths = Annotated[list[Width], Field(min_length=1, max_length=8)]
Blocks = Annotated[list[Block], Field(min_length=1, max_length=8)]
Activation = Literal["silu", "swish", "mish", "gelu", "relu"]
Resampling = Literal["conv", "resnet"]


class _Schedule(BaseModel):
    """DDIMScheduler, and the schedules of betas that only DDPMScheduler has."""

    num_train_timesteps: Levels = 1000
    beta_start: Beta = 0.0001
    beta_end: Beta = 0.02
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace"] = "linear"
    trained_betas: Annotated[list[Beta], Field(max_length=_MAX_LEVELS)] | None = None
    clip_sample: Flag = True
    set_alpha_to_one: Flag = True
    steps_offset: int = Field(0, strict=True, ge=0, le=1000)
    prediction_type: Literal["epsilon", "sample", "v_prediction"] = "epsilon"
    thresholding: Flag = False
    dynamic_thresholding_ratio: Number = 0.995
    clip_sample_range: Positive = 1.0
    sample_max_value: Number = 1.0
    timestep_spacing: Literal["leading", "trailing", "linspace"] = "leading"
    rescale_betas_zero_snr: Flag = False


class _Variants(BaseModel):
    """Settings of other schedulers that mean another process, in which DDIM does not fit."""

    use_flow_sigmas: Literal[False] = False
    timestep_type: Literal["discrete"] = "discrete"


_SPACED = {"clip_sample": False, "timestep_spacing": "linspace"}
# Schedulers of the same discrete process, with their defaults where these differ from DDIMScheduler's. A trajectory of
# DDIM through their noise levels is what diffusers makes of them in DDIMScheduler.from_config.
_SCHEDULERS: Mapping[str, Mapping[str, Any]] = {
    "DDIMScheduler": {},
    "DDPMScheduler": {},
    "PNDMScheduler": {"clip_sample": False, "set_alpha_to_one": False},
    "LMSDiscreteScheduler": _SPACED,
    "EulerDiscreteScheduler": _SPACED,
    "EulerAncestralDiscreteScheduler": _SPACED,
    "HeunDiscreteScheduler": {**_SPACED, "beta_start": 0.00085, "beta_end": 0.012},
    "DPMSolverMultistepScheduler": _SPACED,
    "DPMSolverSinglestepScheduler": _SPACED,
    "DEISMultistepScheduler": _SPACED,
    "UniPCMultistepScheduler": _SPACED,
}


def schedule_config(config: Mapping[str, Any], name: str = "The noise schedule") -> dict[str, Any]:
    """Arguments of `_Schedule` from the configuration of a scheduler.

    Args:
        name: what the configuration is, for messages.

    Raises:
        ZeroshiftError: a scheduler of another process, or a value out of range.
    """
    kind = _class_name(config, "DDIMScheduler", name)
    if kind not in _SCHEDULERS:
        raise ZeroshiftError(
            f"{name} is a {kind}. Deterministic DDIM needs the discrete noise levels of one of: "
            f"{', '.join(_SCHEDULERS)}."
        )
    matches(_Variants, config, name)
    values = _known(_Schedule, {**_SCHEDULERS[kind], **config}, name)
    betas, levels = values.get("trained_betas"), values.get("num_train_timesteps", 1000)
    if betas is not None and len(betas) != levels:
        raise ZeroshiftError(
            f"{name} has {len(betas)} trained_betas but num_train_timesteps is {levels}. Both must be the same."
        )
    return values


class _UNet(BaseModel):
    """UNet2DModel."""

    sample_size: Size
    in_channels: Width = 3
    out_channels: Width = 3
    center_input_sample: Flag = False
    time_embedding_type: Literal["positional", "learned"] = "positional"  # "fourier" divides by the timestep, also by 0
    time_embedding_dim: Width | None = None
    freq_shift: Literal[0, 1] = 0
    flip_sin_to_cos: Flag = True
    down_block_types: Blocks = ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"]
    mid_block_type: Literal["UNetMidBlock2D"] | None = "UNetMidBlock2D"
    up_block_types: Blocks = ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"]
    block_out_channels: Widths = [224, 448, 672, 896]
    layers_per_block: Depth = 2
    mid_block_scale_factor: Positive = 1
    downsample_padding: Literal[0, 1] = 1
    downsample_type: Resampling = "conv"
    upsample_type: Resampling = "conv"
    dropout: Share = 0.0
    act_fn: Activation = "silu"
    attention_head_dim: Width | None = 8
    norm_num_groups: Groups = 32
    attn_norm_num_groups: Groups | None = None
    norm_eps: Share = 1e-5
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    add_attention: Flag = True
    class_embed_type: None = None
    num_class_embeds: None = None
    num_train_timesteps: Levels | None = None


def unet_config(config: Mapping[str, Any], name: str = "The U-Net") -> dict[str, Any]:
    """Arguments of UNet2DModel from its configuration. `sample_size` is one number.

    Raises:
        ZeroshiftError: a network of another class, a conditional one, images that are not square, or a value out of
            range.
    """
    kind = _class_name(config, "UNet2DModel", name)
    if kind != "UNet2DModel" or config.get("num_class_embeds") or config.get("class_embed_type"):
        what = "has classes" if kind == "UNet2DModel" else f"is a {kind}"
        raise ZeroshiftError(
            f"{name} {what}. Only unconditional diffusion models (a UNet2DModel without classes) can be adapted."
        )
    return _known(_UNet, {**config, "sample_size": _square(config.get("sample_size"), name)}, name)


class _Decoder(BaseModel):
    """What VQModel and AutoencoderKL share."""

    in_channels: Width = 3
    out_channels: Width = 3
    down_block_types: Blocks = ["DownEncoderBlock2D"]
    up_block_types: Blocks = ["UpDecoderBlock2D"]
    block_out_channels: Widths = [64]
    layers_per_block: Depth = 1
    act_fn: Activation = "silu"
    sample_size: Annotated[int, Field(strict=True, ge=1, le=MAX_RESOLUTION)] = 32
    norm_num_groups: Groups = 32
    scaling_factor: Positive = 0.18215
    mid_block_add_attention: Flag = True
    force_upcast: Flag | None = None


class _VQModel(_Decoder):
    latent_channels: Width = 3
    num_vq_embeddings: int = Field(256, strict=True, ge=1, le=2**20)
    vq_embed_dim: Width | None = None
    norm_type: Literal["group", "spatial"] = "group"
    lookup_from_codebook: Flag = False


class _AutoencoderKL(_Decoder):
    latent_channels: Width = 4
    shift_factor: Number | None = None
    latents_mean: Annotated[list[Number], Field(max_length=1024)] | None = None
    latents_std: Annotated[list[Number], Field(max_length=1024)] | None = None
    use_quant_conv: Flag = True
    use_post_quant_conv: Flag = True


def decoder_config(config: Mapping[str, Any], name: str = "The decoder") -> dict[str, Any]:
    """Arguments of VQModel or AutoencoderKL, and "_class_name", from a configuration.

    Raises:
        ZeroshiftError: a network of another class, or a value out of range.
    """
    kind = _class_name(config, "", name)
    if kind not in DECODERS:
        raise ZeroshiftError(f"{name} is a {kind}; it must be a {' or '.join(DECODERS)}.")
    if isinstance(config.get("sample_size"), (list, tuple)):
        config = {**config, "sample_size": _square(config["sample_size"], name)}
    return {"_class_name": kind, **_known(_VQModel if kind == "VQModel" else _AutoencoderKL, config, name)}


class _Half(BaseModel):
    """What both networks of a diffusion autoencoder have."""

    resolution: int = Field(strict=True, ge=2, le=2048)
    channels: Annotated[list[Width], Field(min_length=1, max_length=10)]
    z_dim: int = Field(strict=True, ge=1, le=4096)
    blocks: Depth = 2
    attention: Annotated[list[Size], Field(max_length=16)] = [16]
    groups: Groups = 32


class _ConditionalUNet(_Half):
    embed_dim: Width = 512
    time_dim: Width | None = None


class AutoencoderSettings(BaseModel):
    """The networks of a diffusion autoencoder: constructor arguments of `ConditionalUNet` and `SemanticEncoder`."""

    unet: _ConditionalUNet
    encoder: _Half


def _class_name(config: Mapping[str, Any], default: str, name: str) -> str:
    kind = config.get("_class_name", default)
    if not isinstance(kind, str) or len(kind) > 100:
        raise ZeroshiftError(f"{name} does not match: _class_name must be a short text.")
    return kind or "model without _class_name"


def _known(model: type[BaseModel], config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The checked fields of a configuration that a model has; other fields and defaults are left out."""
    return matches(model, dict(config), name).model_dump(exclude_unset=True)


def _square(size: Any, name: str) -> Any:
    """`sample_size`, where [n, n] means n."""
    if isinstance(size, (list, tuple)) and len(size) == 2 and all(isinstance(each, int) for each in size):
        if size[0] != size[1]:
            raise ZeroshiftError(f"{name} generates images of {size[0]} x {size[1]} pixels; they must be square.")
        return size[0]
    return size
