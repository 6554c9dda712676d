"""Face recognition features."""

import json
from pathlib import Path
from typing import Any

from torch import Tensor
from torchvision.transforms.v2.functional import InterpolationMode, normalize, resize

from zeroshift.errors import ZeroshiftError
from zeroshift.networks.base import FeatureNetwork, read_weights

__all__ = []


class _Face(FeatureNetwork):
    """A face recogniser that timm describes, on faces aligned as FFHQ's are.

    The crop is that which pSp and its followers take for ArcFace: of 256 pixels, rows 35 to 223, columns 32 to 220.
    """

    REPOSITORY = "gaunernst/vit_small_patch8_gap_112.cosface_ms1mv3"
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
        """[N, E]."""
        height, width = images.shape[-2:]
        top, bottom = (round(row / 256 * height) for row in (35, 223))
        left, right = (round(column / 256 * width) for column in (32, 220))
        faces = resize(images[..., top:bottom, left:right], self._size, InterpolationMode.BICUBIC, antialias=True)
        return self.network(normalize((faces + 1) / 2, self._data["mean"], self._data["std"])).float()


def _load_face(given: str) -> FeatureNetwork:
    """From a folder with config.json and model.safetensors, or the same files of the authors' repository."""
    names = ("config.json", "model.safetensors")
    if given:
        config, weights = (Path(given) / name for name in names)
    else:
        from huggingface_hub import hf_hub_download

        try:
            config, weights = (Path(hf_hub_download(_Face.REPOSITORY, name)) for name in names)
        except Exception as error:  # whatever network, hub and disk give rise to
            raise ZeroshiftError(
                f"The face recogniser huggingface.co/{_Face.REPOSITORY} cannot be had ({type(error).__name__}). "
                f"Check the network, or put its {' and '.join(names)} into a folder and name it: face:FOLDER."
            ) from error
    try:
        description = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ZeroshiftError(f"{config} cannot be read as the description of a face recogniser.") from error
    return _Face(description, read_weights(weights))
