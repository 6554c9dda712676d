"""Feature networks that measures look through: named, loaded when needed, from a file or their authors' address.

"NETWORK" or "NETWORK:FILE"; `NETWORKS` lists them. No code in a file is ever executed.
"""

import io
import json
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.transforms.v2.functional import InterpolationMode, normalize, resize

from .encoder import Encoder, load_encoder
from .errors import ZeroshiftError
from .metrics import cosine_embedding

__all__ = ["NETWORKS", "FeatureNetwork", "Weights", "load_network", "read_weights"]

_DINOV2_SIZES = {384: "small", 768: "base", 1024: "large", 1536: "giant"}  # by the width of their tokens
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FeatureNetwork(nn.Module):
    """Frozen; maps images [N, 3, R, R] in [-1, 1], of 8-bit levels, to what is kept of them, [N, ...]."""

    provides: frozenset[
        str
    ]  # what a measure can ask for: "features", "classes", "texts", "maps", "edges", "perceptual"

    def embed(self, observed: Tensor) -> Tensor:
        """[N, D] of what `forward` gave: vectors whose squared distance is the distance between the images."""
        return cosine_embedding(observed)


@dataclass(frozen=True)
class Weights:
    """A published file of weights."""

    file: str
    address: str

    def find(self, given: str) -> Path:
        """`given`, or the file in the cache, fetched from its authors if it is not there.

        Raises:
            ZeroshiftError: if there is neither, saying where to put the file.
        """
        if given:
            return Path(given)
        from .generators.hub import cache_folder, download

        target = cache_folder() / "features" / self.file
        try:
            return download(self.address, target)
        except ZeroshiftError as error:
            raise ZeroshiftError(f"{error} It is looked for at {target}.") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors or PyTorch file, on the CPU.

    Raises:
        ZeroshiftError: if there is no such file, or it is damaged or holds more than plain data.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ZeroshiftError(f"There is no file of weights {path}. Check the path.") from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise ZeroshiftError(
            f"{path} cannot be read as a file of weights: it is damaged or of another kind."
        ) from error


class _Inception(FeatureNetwork):
    """FID's own Inception v3 as torch-fidelity has it, TensorFlow's resizing included."""

    WEIGHTS = Weights(
        "weights-inception-2015-12-05-6726825d.pth",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    )
    provides = frozenset({"features", "classes"})
    layer = "2048"

    def __init__(self, state: dict[str, Tensor]):
        super().__init__()
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise ZeroshiftError(
                "Inception features need the package torch-fidelity: pip install 'zeroshift[metrics]'."
            ) from error
        plain = io.BytesIO()  # it would run whatever a file holds; what it gets here has been read as data
        torch.save(state, plain)
        plain.seek(0)
        self.network = FeatureExtractorInceptionV3("inception", [self.layer], feature_extractor_weights_path=plain)

    def forward(self, images: Tensor) -> Tensor:
        """[N, 2048]."""
        return self.network(((images + 1) * 127.5).round().to(torch.uint8))[0]

    def classify(self, features: Tensor) -> Tensor:
        """Logits [N, 1008] without bias, as the Inception Score takes them."""
        return features @ self.network.fc.weight.T.to(features)


class _ShallowInception(_Inception):
    """For SIFID: the Gaussian over the places of each image's map just before Inception's second pooling.

    SinGAN's program takes the same layer of another network, torchvision's Inception v3 of ImageNet, at the image's own
    size, while this is FID's at 299 pixels. So values are not comparable with those of papers that used that program.
    """

    provides = frozenset({"maps"})
    layer = "192"

    def forward(self, images: Tensor) -> Tensor:
        """[N, 1 + 192, 192] in float64: the mean above the root of the covariance."""
        from .metrics import gaussian

        maps: list[Tensor] = []
        handle = self.network.Conv2d_4a_3x3.register_forward_hook(lambda module, inputs, output: maps.append(output))
        try:
            super().forward(images)
        finally:
            handle.remove()
        mean, root = gaussian(maps[0].flatten(2).mT)  # of [N, 71 * 71, 192]
        return torch.cat([mean[:, None], root], dim=1)


class _DINOv2(FeatureNetwork):
    """The class token of DINOv2 at 224 pixels, as FD-DINOv2 takes it (Stein et al., 2023).

    Reads Meta's files of all four sizes, with registers or without. Position embeddings come to 16 x 16 as Meta's own
    program brings them, which is not timm's way.
    """

    WEIGHTS = Weights(
        "dinov2_vitl14_pretrain.pth", "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth"
    )
    provides = frozenset({"features"})
    resolution, grid = 224, 16

    def __init__(self, state: dict[str, Tensor]):
        super().__init__()
        import timm
        from timm.models.vision_transformer import checkpoint_filter_fn

        registers = "_reg4" if "register_tokens" in state else ""
        name = f"vit_{_DINOV2_SIZES[state['cls_token'].shape[-1]]}_patch14{registers}_dinov2"
        network: Any = timm.create_model(name, img_size=self.resolution, num_classes=0)
        state = {**state, "pos_embed": self._positions(state["pos_embed"])}
        network.load_state_dict(checkpoint_filter_fn(state, network))
        self.network = network

    def _positions(self, embedding: Tensor) -> Tensor:
        """[1, 1 + 37 * 37, D] -> [1, 1 + 16 * 16, D]."""
        side = math.isqrt(embedding.shape[1] - 1)
        places = embedding[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        scale = (self.grid + 0.1) / side  # the tenth is in Meta's program, against rounding down
        places = F.interpolate(places, scale_factor=(scale, scale), mode="bicubic")
        return torch.cat([embedding[:, :1], places.flatten(2).mT], dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """[N, D]."""
        size = [self.resolution, self.resolution]
        images = resize((images + 1) / 2, size, InterpolationMode.BICUBIC, antialias=True).clamp(0, 1)  # as Pillow does
        return self.network(normalize(images, IMAGENET_MEAN, IMAGENET_STD)).float()


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


class _ImageTower(FeatureNetwork):
    """The image features of a CLIP encoder, whose text tower measures of text use."""

    provides = frozenset({"features", "texts"})

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        """[N, E]."""
        return self.encoder.encode_image(images)


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


def _load_judge(given: str) -> FeatureNetwork:
    from .miniature.encoders import load_judge

    return _ImageTower(load_judge(given or None))


def _load_hed(given: str) -> FeatureNetwork:
    from .edges import HED, HED_WEIGHTS

    return HED(read_weights(HED_WEIGHTS.find(given)))


def _load_sobel(given: str) -> FeatureNetwork:
    from .edges import Sobel

    return Sobel()


def _load_lpips(given: str) -> FeatureNetwork:
    from .perceptual import LPIPS, VGG_WEIGHTS

    return LPIPS(read_weights(VGG_WEIGHTS.find(given)))


NETWORKS: dict[str, tuple[str, Callable[[str], FeatureNetwork]]] = {
    "inception": ("FID's Inception v3", lambda given: _Inception(read_weights(_Inception.WEIGHTS.find(given)))),
    "inception-maps": (
        "its maps before the second pooling",
        lambda given: _ShallowInception(read_weights(_Inception.WEIGHTS.find(given))),
    ),
    "dinov2": ("Meta's DINOv2, ViT-L/14", lambda given: _DINOv2(read_weights(_DINOv2.WEIGHTS.find(given)))),
    "open_clip": ("open_clip:MODEL/WEIGHTS or open_clip:FILE", lambda given: _ImageTower(load_encoder(given))),
    "miniature-judge": ("the miniature world's judge, which never guides", _load_judge),
    "face": ("a face recogniser; face:FOLDER with timm's files", _load_face),
    "lpips": ("LPIPS on VGG-16", _load_lpips),
    "hed": ("HED's edges", _load_hed),
    "sobel": ("Sobel's edges", _load_sobel),
}


@lru_cache(maxsize=len(NETWORKS))
def load_network(name: str, device: str | torch.device = "cpu") -> FeatureNetwork:
    """A network of `NETWORKS`, frozen, in eval mode; one that was loaded before is given again.

    Args:
        name: "NETWORK", or "NETWORK:FILE" to read other weights, or the same ones without a network connection.
    Raises:
        ZeroshiftError: an unknown name, a file that is missing or of another kind, no network connection.
    """
    kind, _, given = name.partition(":")
    if kind not in NETWORKS:
        raise ZeroshiftError(f"There is no feature network {kind!r}. There are: {', '.join(NETWORKS)}.")
    try:
        network = NETWORKS[kind][1](given)
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ZeroshiftError(
            f"The weights given for {name!r} are of another kind: they do not fit the network {kind!r}."
        ) from error
    return network.to(device).eval().requires_grad_(False)
