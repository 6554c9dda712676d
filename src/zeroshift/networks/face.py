"""Face recognition features."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torchvision.transforms.v2.functional import InterpolationMode, normalize, resize

from zeroshift.clip.weights import build, read_weights
from zeroshift.errors import ZeroshiftError
from zeroshift.io.foreign import matches, read_json
from zeroshift.io.hub import hub_file
from zeroshift.networks.base import FeatureNetwork, require_timm
from zeroshift.networks.registry import Network

__all__ = ["ARCHITECTURES", "FACE", "FaceRecognizer", "load_face_recognizer"]

REPOSITORY = "gaunernst/vit_small_patch8_gap_112.cosface_ms1mv3"  # on the Hugging Face hub
REVISION = "c8f63e46fd42b5510d910ab884e23b3bb9fb4f8e"
_FILES = ("config.json", "model.safetensors")

ARCHITECTURES = ("convnext", "efficientnet", "ghostnet", "hgnet", "mobilenetv3", "resnet", "vision_transformer")
"""Modules of timm whose models a config.json may name."""

_Size = Annotated[int, Field(ge=1, le=4096)]
_Sizes = Annotated[list[_Size], Field(min_length=1, max_length=8)]
_Numbers = Annotated[list[Annotated[float, Field(ge=-1000, le=1000)]], Field(min_length=3, max_length=3)]
_Deviations = Annotated[list[Annotated[float, Field(ge=1e-4, le=1000)]], Field(min_length=3, max_length=3)]


class _ModelArgs(BaseModel):
    """Sizes and switches of timm's models. Others are refused: some load files or fetch addresses."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    img_size: _Size | None = None
    patch_size: _Size | None = None
    embed_dim: _Size | None = None
    depth: Annotated[int, Field(ge=1, le=128)] | None = None
    num_heads: Annotated[int, Field(ge=1, le=256)] | None = None
    mlp_ratio: Annotated[float, Field(gt=0, le=16)] | None = None
    init_values: Annotated[float, Field(ge=0, le=10)] | None = None
    reg_tokens: Annotated[int, Field(ge=0, le=256)] | None = None
    global_pool: Literal["", "avg", "token", "max", "map", "avgmax"] | None = None
    class_token: bool | None = None
    fc_norm: bool | None = None
    pre_norm: bool | None = None
    qkv_bias: bool | None = None
    qk_norm: bool | None = None
    no_embed_class: bool | None = None
    depths: _Sizes | None = None
    dims: _Sizes | None = None


class _PretrainedCfg(BaseModel):
    """The fields that are used. The others, such as the address of weights, are not."""

    model_config = ConfigDict(allow_inf_nan=False)

    input_size: Annotated[list[Annotated[int, Field(ge=1, le=1024)]], Field(min_length=3, max_length=3)]
    mean: _Numbers
    std: _Deviations
    fixed_input_size: bool = False


class _Config(BaseModel):
    """timm's config.json."""

    architecture: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,80}$")]
    num_classes: Annotated[int, Field(ge=1, le=1_000_000)]
    pretrained_cfg: _PretrainedCfg
    model_args: _ModelArgs = _ModelArgs()


class FaceRecognizer(FeatureNetwork):
    """A face recognition network in timm's format, for faces aligned as in FFHQ.

    The crop is that of pSp and later work for ArcFace: rows 35 to 223 and columns 32 to 220 of 256 pixels.

    Args:
        config: contents of timm's config.json. Only sizes and normalization are taken from it.
        state: the weights.
        name: what the network is, for messages.
    Raises:
        ZeroshiftError: a configuration or weights that cannot be used.
    """

    provides = frozenset({"features"})

    def __init__(self, config: dict[str, Any], state: dict[str, Tensor], name: str = "The face recognizer"):
        super().__init__()
        checked = matches(_Config, config, f"The configuration of {name}")
        self._data = checked.pretrained_cfg
        self._size = self._data.input_size[-2:]
        fixed = {"img_size": self._size[0]} if self._data.fixed_input_size else {}
        options = {**fixed, **checked.model_args.model_dump(exclude_none=True), "num_classes": checked.num_classes}
        timm = _timm_with(checked.architecture, name)
        self.network = build(lambda: timm.create_model(checked.architecture, **options), state, name)

    def forward(self, images: Tensor) -> Tensor:
        """Features [N, E] of images [N, 3, H, W] in [-1, 1]."""
        height, width = images.shape[-2:]
        top, bottom = (round(row / 256 * height) for row in (35, 223))
        left, right = (round(column / 256 * width) for column in (32, 220))
        faces = resize(images[..., top:bottom, left:right], self._size, InterpolationMode.BICUBIC, antialias=True)
        features: Tensor = self.network(normalize((faces + 1) / 2, self._data.mean, self._data.std))
        return features.float()


def _timm_with(architecture: str, name: str) -> Any:
    """The package timm, which has this architecture in one of the allowed modules."""
    timm = require_timm()
    if not any(architecture in timm.list_models(module=module) for module in ARCHITECTURES):
        raise ZeroshiftError(
            f"{name} names the architecture {architecture!r}. Known ones are timm's models in "
            f"{', '.join(ARCHITECTURES)}."
        )
    return timm


def load_face_recognizer(folder: str = "") -> FaceRecognizer:
    """The recognizer in a folder with config.json and model.safetensors, or the one in `REPOSITORY`.

    Raises:
        ZeroshiftError: if the files cannot be downloaded or read.
    """
    config, weights = (Path(folder) / name for name in _FILES) if folder else _download()
    if folder and not config.is_file():
        raise ZeroshiftError(f"{folder} is no folder of a face recognizer: expected {' and '.join(_FILES)} in it.")
    return FaceRecognizer(read_json(config), read_weights(weights), str(config.parent))


def _download() -> list[Path]:
    try:
        return [hub_file(REPOSITORY, [name], REVISION) for name in _FILES]
    except ZeroshiftError as error:
        raise ZeroshiftError(
            f"{error} You can also put {' and '.join(_FILES)} into a folder and name it: face:FOLDER."
        ) from error


FACE = Network("a face recognizer; face:FOLDER with timm's files", load_face_recognizer)
