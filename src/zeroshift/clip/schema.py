"""What foreign configurations of encoders may say: known fields of open_clip, with limits.

The limits are several times those of the largest published models. In a file, fields that reach elsewhere (names of
models and tokenizers of timm and Hugging Face) must be empty, as in a configuration with all defaults written out.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["EncoderConfig", "EncoderTexts", "HubConfig", "ImageTower", "TextTower"]

VOCABULARY = 49408  # of the tokenizer that self-contained files use

_Width = Annotated[int, Field(ge=1, le=8192)]
_Layers = Annotated[int, Field(ge=1, le=128)]
_Pixels = Annotated[int, Field(ge=1, le=1024)]
_Ratio = Annotated[float, Field(gt=0, le=16)]
_Factor = Annotated[float, Field(ge=-1000, le=1000)]
_Empty = Literal[None, ""]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Activation(_Strict):
    approximate: Literal["none", "tanh"] = "none"


class _Norm(_Strict):
    eps: float = Field(default=1e-5, gt=0, lt=1)


class _Block(_Strict):
    """Fields of both towers."""

    width: _Width
    mlp_ratio: _Ratio = 4.0
    ls_init_value: _Factor | None = None
    final_ln_after_pool: bool = False
    output_tokens: Literal[False] = False
    act_kwargs: _Activation | None = None
    norm_kwargs: _Norm | None = None
    block_type: Literal[None, "default", "custom"] = None
    qk_norm: bool = False
    scaled_cosine_attn: bool = False
    scale_heads: bool = False
    scale_attn_inner: bool = False
    scale_attn: bool = False
    scale_fc: bool = False


class ImageTower(_Block):
    """`vision_cfg`: a vision transformer, or with four numbers of `layers`, a ResNet."""

    width: _Width = 768
    layers: _Layers | Annotated[list[_Layers], Field(min_length=4, max_length=4)] = 12
    head_width: _Width = 64
    patch_size: _Pixels | None = 16
    image_size: _Pixels | Annotated[list[_Pixels], Field(min_length=2, max_length=2)] = 224
    patch_dropout: float = Field(default=0.0, ge=0, lt=1)
    attentional_pool: bool = False
    attn_pooler_queries: int = Field(default=256, ge=1, le=4096)
    attn_pooler_heads: int = Field(default=8, ge=1, le=256)
    no_ln_pre: bool = False
    pos_embed_type: Literal["learnable", "sin_cos_2d"] = "learnable"
    pool_type: Literal["tok", "avg"] = "tok"
    timm_model_name: _Empty = None
    timm_model_pretrained: bool = False
    timm_pool: str = ""
    timm_proj: str = ""
    timm_proj_bias: bool = False
    timm_drop: float = 0.0
    timm_drop_path: float | None = None

    @model_validator(mode="after")
    def _fits(self) -> "ImageTower":
        height, width = self.image_size if isinstance(self.image_size, list) else (self.image_size,) * 2
        if isinstance(self.layers, list):
            if height != width or height % 32 or self.width * 32 % self.head_width:
                raise ValueError("a ResNet needs a square image_size, a multiple of 32, and whole attention heads")
        elif self.patch_size is None or self.patch_size > min(height, width) or self.width % self.head_width:
            raise ValueError("patches must be smaller than the image, and width a multiple of head_width")
        return self


class TextTower(_Block):
    """`text_cfg`."""

    width: _Width = 512
    context_length: int = Field(default=77, ge=4, le=2048)
    vocab_size: int = Field(default=VOCABULARY, ge=VOCABULARY, le=1_000_000)
    heads: int = Field(default=8, ge=1, le=256)
    layers: _Layers = 12
    embed_cls: bool = False
    pad_id: int = Field(default=0, ge=0, lt=VOCABULARY)
    eos_id: int = Field(default=2, ge=0, lt=VOCABULARY)
    no_causal_mask: bool = False
    pool_type: Literal["argmax", "eos", "first", "last"] = "argmax"
    proj_bias: bool = False
    proj_type: Literal["linear", "none"] = "linear"
    hf_tokenizer_name: _Empty = None
    hf_model_name: _Empty = None
    hf_model_pretrained: bool = True
    hf_proj_type: str = ""
    hf_pooler_type: str = ""
    tokenizer_mode: _Empty = None
    tokenizer_kwargs: Literal[None] = None

    @model_validator(mode="after")
    def _fits(self) -> "TextTower":
        if self.width % self.heads:
            raise ValueError("width must be a multiple of heads")
        return self


_ELSEWHERE = ("timm_", "hf_", "tokenizer_")  # prefixes of fields that are not passed on


class EncoderConfig(_Strict):
    """`open_clip_config`: arguments of `open_clip.CLIP`, or with `custom_text`, of `open_clip.CustomTextCLIP`."""

    embed_dim: _Width
    vision_cfg: ImageTower
    text_cfg: TextTower
    custom_text: bool = False
    quick_gelu: bool = False
    init_logit_scale: _Factor | None = None
    init_logit_bias: _Factor | None = None
    nonscalar_logit_scale: bool = False
    output_dict: bool = False

    def arguments(self) -> dict[str, Any]:
        """The fields that were given, without those that reach elsewhere."""
        given = self.model_dump(exclude_unset=True, exclude_none=True, exclude={"custom_text", "output_dict"})
        for tower in ("vision_cfg", "text_cfg"):
            given[tower] = {key: value for key, value in given[tower].items() if not key.startswith(_ELSEWHERE)}
        return given


class EncoderTexts(_Strict):
    """The other metadata of an encoder file."""

    image_mean: Annotated[list[_Factor], Field(min_length=3, max_length=3)]
    image_std: Annotated[list[Annotated[float, Field(ge=1e-4, le=1000)]], Field(min_length=3, max_length=3)]
    templates: Annotated[list[Annotated[str, Field(max_length=400)]], Field(max_length=2000)] | None = None
    known_words: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=1_000_000)] | None = None
    known_labels: Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=20_000)] | None = None


_Name = Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z0-9][\w.\-]*(/[\w.\-]+)?$")]  # no "hf-hub:", no path
_Scalars = Annotated[dict[str, bool | int | float | str], Field(max_length=20)]


class _HubTower(BaseModel):
    """The part of a tower that reaches elsewhere; open_clip checks the rest."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    width: _Width = 512
    layers: _Layers | Annotated[list[_Layers], Field(min_length=4, max_length=4)] = 12
    image_size: _Pixels | Annotated[list[_Pixels], Field(min_length=2, max_length=2)] = 224
    mlp_ratio: _Ratio = 4.0
    context_length: int = Field(default=77, ge=4, le=8192)
    vocab_size: int = Field(default=VOCABULARY, ge=1, le=2_000_000)
    timm_model_name: _Name | None = None
    hf_model_name: _Name | None = None
    hf_tokenizer_name: _Name | None = None
    tokenizer_kwargs: _Scalars | None = None


class _HubModel(BaseModel):
    model_config = ConfigDict(extra="allow")

    embed_dim: _Width
    vision_cfg: _HubTower
    text_cfg: _HubTower


class _Preprocessing(BaseModel):
    mean: Annotated[list[_Factor], Field(min_length=3, max_length=3)] | None = None
    std: Annotated[list[Annotated[float, Field(ge=1e-4, le=1000)]], Field(min_length=3, max_length=3)] | None = None


class HubConfig(BaseModel):
    """open_clip_config.json of a model on the Hugging Face Hub. Its models and tokenizers may be others of the Hub."""

    model_cfg: _HubModel
    preprocess_cfg: _Preprocessing = _Preprocessing()
