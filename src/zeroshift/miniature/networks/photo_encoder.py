"""The encoder of the miniature StyleGAN2: a photo of the world -> codes in W+, in one pass."""

import json
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from zeroshift.clip.weights import build, read_safetensors
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Codes, Generator
from zeroshift.inversion.encoders import InversionEncoder
from zeroshift.io.checksums import save_tensors
from zeroshift.io.foreign import matches, parse_json
from zeroshift.miniature.networks.encoders import ConvTower, weights_path

__all__ = ["PHOTO_ENCODER_CONFIG", "PhotoEncoder", "load_photo_encoder", "save_photo_encoder"]

PHOTO_ENCODER_CONFIG: dict[str, Any] = {"channels": [32, 64, 128, 256], "num_ws": 10, "w_dim": 128}
_KEY = "photo_encoder_config"


class _Config(BaseModel):
    """The arguments of PhotoEncoder."""

    channels: Annotated[list[Annotated[int, Field(ge=2, le=4096)]], Field(min_length=4, max_length=4)]
    num_ws: int = Field(ge=2, le=64)
    w_dim: int = Field(ge=1, le=8192)


class PhotoEncoder(InversionEncoder):
    """One w per photo and an offset per layer, as in e4e (Tov et al., 2021).

    Args:
        channels: of the residual blocks of the tower.
        num_ws, w_dim: of the codes.
    """

    name = "the miniature encoder"
    mean: Tensor

    def __init__(self, channels: list[int], num_ws: int, w_dim: int):
        super().__init__()
        self.num_ws, self.w_dim = num_ws, w_dim
        self.tower = ConvTower(channels, w_dim * (1 + num_ws))
        self.register_buffer("mean", torch.zeros(w_dim))  # the average w of the generator

    def require_fit(self, generator: Generator) -> None:
        """As `InversionEncoder.require_fit`."""
        space = generator.style_space()
        size = ConvTower.image_size
        if space is None or (space.num_ws, space.w_dim, generator.resolution) != (self.num_ws, self.w_dim, size):
            raise ZeroshiftError(
                f"The miniature encoder gives {self.num_ws} styles of width {self.w_dim} from images of {size} pixels, "
                f"for the miniature StyleGAN2. It does not fit this {generator.architecture} generator."
            )

    def forward(self, images: Tensor, generator: Generator | None = None) -> Codes:
        """As `InversionEncoder.forward`; the generator is not needed."""
        w, offsets = self.parts(images)
        return w[:, None] + offsets

    def parts(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """w [N, w_dim] and offsets [N, num_ws, w_dim]."""
        outputs = self.tower(images).float()
        w, offsets = outputs.split([self.w_dim, self.num_ws * self.w_dim], dim=1)
        return self.mean + w, offsets.unflatten(1, (self.num_ws, self.w_dim))


def save_photo_encoder(encoder: PhotoEncoder, path: Path) -> None:
    """Writes an encoder in half precision, with its configuration."""
    state = encoder.state_dict().items()
    tensors = {name: value.half() if value.is_floating_point() else value for name, value in state}
    save_tensors(path, tensors, {_KEY: json.dumps(PHOTO_ENCODER_CONFIG)})


def load_photo_encoder(path: Path | None = None) -> PhotoEncoder:
    """An encoder, frozen, in evaluation mode on the CPU; the shipped one by default.

    Raises:
        ZeroshiftError: if the file is missing, damaged or of another kind.
    """
    path = path or weights_path("photo_encoder")
    state, metadata = read_safetensors(path)
    if _KEY not in metadata:
        raise ZeroshiftError(f"{path} contains another kind of model: its metadata has no {_KEY!r}.")
    config = matches(_Config, parse_json(metadata[_KEY], f"{_KEY} in {path}"), f"{_KEY} in {path}")
    encoder = build(lambda: PhotoEncoder(**config.model_dump()), state, str(path))
    return encoder.eval().requires_grad_(False)
