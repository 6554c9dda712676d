"""Face recognition features."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor
from torchvision.transforms.v2.functional import InterpolationMode, normalize, resize

from zeroshift.errors import ZeroshiftError
from zeroshift.networks.base import FeatureNetwork, read_weights
from zeroshift.networks.registry import Network

__all__ = ["FACE", "FaceRecognizer", "load_face_recognizer"]

REPOSITORY = "gaunernst/vit_small_patch8_gap_112.cosface_ms1mv3"  # on the Hugging Face hub
_FILES = ("config.json", "model.safetensors")


class FaceRecognizer(FeatureNetwork):
    """A face recognition network in timm's format, for faces aligned as in FFHQ.

    The crop is that of pSp and later work for ArcFace: rows 35 to 223 and columns 32 to 220 of 256 pixels.

    Args:
        config: contents of timm's config.json.
        state: the weights.
    """

    provides = frozenset({"features"})

    def __init__(self, config: dict[str, Any], state: dict[str, Tensor]):
        super().__init__()
        import timm

        self._data = config["pretrained_cfg"]
        self._size = list(self._data["input_size"][-2:])
        fixed = {"img_size": self._size[0]} if self._data.get("fixed_input_size") else {}
        options = {**fixed, **config.get("model_args", {}), "num_classes": config["num_classes"]}
        self.network = timm.create_model(config["architecture"], **options)
        self.network.load_state_dict(state)

    def forward(self, images: Tensor) -> Tensor:
        """Features [N, E] of images [N, 3, H, W] in [-1, 1]."""
        height, width = images.shape[-2:]
        top, bottom = (round(row / 256 * height) for row in (35, 223))
        left, right = (round(column / 256 * width) for column in (32, 220))
        faces = resize(images[..., top:bottom, left:right], self._size, InterpolationMode.BICUBIC, antialias=True)
        features: Tensor = self.network(normalize((faces + 1) / 2, self._data["mean"], self._data["std"]))
        return features.float()


def load_face_recognizer(folder: str = "") -> FaceRecognizer:
    """The recognizer in a folder with config.json and model.safetensors, or the one in `REPOSITORY`.

    Raises:
        ZeroshiftError: if the files cannot be downloaded or read.
    """
    config, weights = (Path(folder) / name for name in _FILES) if folder else _download()
    try:
        description = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ZeroshiftError(
            f"{config} cannot be read as the description of a face recognizer. Check the folder."
        ) from error
    return FaceRecognizer(description, read_weights(weights))


def _download() -> list[Path]:
    from huggingface_hub import hf_hub_download

    try:
        return [Path(hf_hub_download(REPOSITORY, name)) for name in _FILES]
    except Exception as error:  # network, hub and disk errors have many types
        raise ZeroshiftError(
            f"The face recognizer huggingface.co/{REPOSITORY} cannot be downloaded ({type(error).__name__}). "
            f"Check the network, or put {' and '.join(_FILES)} into a folder and name it: face:FOLDER."
        ) from error


FACE = Network("a face recognizer; face:FOLDER with timm's files", load_face_recognizer)
