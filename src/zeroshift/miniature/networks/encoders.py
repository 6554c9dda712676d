"""The guidance encoder, held-out evaluator and probe of the miniature world: architectures and files.

The guidance encoder is an `open_clip.CLIP`. The held-out evaluator has another, convolutional image tower and a
narrower text tower, so that images that fool one of them do not necessarily fool the other. The probe is a
convolutional network that reads factors from images. In files, the first two are named "guide" and "judge".
"""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.transformer import TextTransformer
from pydantic import BaseModel, Field
from torch import Tensor, nn

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.schema import EncoderTexts, TextTower
from zeroshift.clip.weights import build, load_into, read_safetensors
from zeroshift.errors import ZeroshiftError
from zeroshift.io.checksums import save_tensors
from zeroshift.io.foreign import matches, parse_json
from zeroshift.miniature.networks.alignment import CROP, align_faces
from zeroshift.miniature.world.captions import TEMPLATES, known_labels, known_words
from zeroshift.miniature.world.factors import FACTORS

__all__ = [
    "EVALUATOR_CONFIG",
    "GUIDANCE_CONFIG",
    "NUM_READINGS",
    "PROBE_CONFIG",
    "ConvTower",
    "Evaluator",
    "Probe",
    "build_guidance_encoder",
    "encode_tokens",
    "load_evaluator",
    "load_probe",
    "load_weights",
    "readings",
    "save_encoder",
    "save_probe",
    "tokenize",
    "weights_folder",
    "weights_path",
]  # fmt: skip

CONTEXT_LENGTH = 64  # the longest captions have about 55 tokens
VOCABULARY = 49408  # open_clip's own tokenizer

# The arguments of open_clip.CLIP; bottlenecks and attention pooling as in CLIP's RN50.
GUIDANCE_CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "layers": [1, 2, 2, 1], "width": 24, "head_width": 64},
    "text_cfg": {"context_length": CONTEXT_LENGTH, "vocab_size": VOCABULARY, "width": 96, "heads": 3, "layers": 2},
}  # fmt: skip
EVALUATOR_CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "channels": [32, 64, 128, 192],
    "text_cfg": {"context_length": CONTEXT_LENGTH, "vocab_size": VOCABULARY, "width": 64, "heads": 2, "layers": 2},
}
PROBE_CONFIG: dict[str, Any] = {"channels": [32, 64, 128, 192], "face_channels": [32, 48], "face_width": 256}

NUM_READINGS = sum(len(factor.classes) or 1 for factor in FACTORS)  # one number per scalar factor, one logit per class


_TEXTS = ("image_mean", "image_std", "templates", "known_words", "known_labels")  # of an encoder file
_Channels = Annotated[list[Annotated[int, Field(ge=2, le=4096)]], Field(min_length=4, max_length=4)]
_TwoChannels = Annotated[list[Annotated[int, Field(ge=2, le=4096)]], Field(min_length=2, max_length=2)]


class _EvaluatorConfig(BaseModel):
    """The arguments of Evaluator."""

    embed_dim: int = Field(ge=1, le=8192)
    channels: _Channels
    text_cfg: TextTower


class _ProbeConfig(BaseModel):
    """The arguments of Probe."""

    channels: _Channels
    face_channels: _TwoChannels
    face_width: int = Field(ge=1, le=8192)


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv0 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm0 = nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        same = inputs == outputs and stride == 1
        self.skip = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv0(x)
        h = self.conv1(F.relu(self.norm0(h)))
        return F.relu(self.skip(x) + self.norm1(h))


class ConvTower(nn.Module):
    """A residual network with one block per entry of `channels`: [N, 3, 64, 64] -> [N, out_dim].

    The head gets the mean of the last map [4, 4] and, through a narrow 1x1 convolution, the map itself, because
    positions matter.
    """

    image_size = 64

    def __init__(self, channels: Sequence[int], out_dim: int):
        super().__init__()
        self.stem = nn.Conv2d(3, channels[0], 5, 2, 2, bias=False)
        self.norm = nn.BatchNorm2d(channels[0])
        pairs = zip([channels[0], *channels[:-1]], channels, strict=True)
        self.blocks = nn.Sequential(*[_Residual(a, b, 1 if i == 0 else 2) for i, (a, b) in enumerate(pairs)])
        self.narrow = nn.Conv2d(channels[-1], 32, 1)
        self.head = nn.Linear(channels[-1] + 32 * 16, out_dim)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        x = images.contiguous(memory_format=torch.channels_last)
        x = self.blocks(F.relu(self.norm(self.stem(x))))
        features: Tensor = self.head(torch.cat([x.mean(dim=(2, 3)), F.relu(self.narrow(x)).flatten(1)], dim=1))
        return features


class FaceTower(nn.Module):
    """Aligned faces [N, 3, CROP, CROP] -> [N, NUM_READINGS]; initialized to return zeros.

    Facial features are at fixed places in an aligned face, so a wide linear layer reads all places of a fine map.
    """

    def __init__(self, channels: Sequence[int], width: int):
        super().__init__()
        first, last = channels
        self.stem = nn.Conv2d(3, first, 5, 2, 2, bias=False)
        self.norm = nn.BatchNorm2d(first)
        self.blocks = nn.Sequential(_Residual(first, first, 1), _Residual(first, last, 2))
        self.narrow = nn.Conv2d(last, last // 2, 1)
        self.wide = nn.Linear(last // 2 * (CROP // 4) ** 2, width, bias=False)
        self.wide_norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, NUM_READINGS)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.to(memory_format=torch.channels_last)

    def forward(self, faces: Tensor) -> Tensor:
        x = faces.contiguous(memory_format=torch.channels_last)
        x = F.relu(self.narrow(self.blocks(F.relu(self.norm(self.stem(x))))))
        outputs: Tensor = self.head(F.relu(self.wide_norm(self.wide(x.flatten(1)))))
        return outputs


class Evaluator(nn.Module):
    """The held-out evaluator: a ConvTower and a text tower with the interface of `open_clip.CustomTextCLIP`."""

    def __init__(self, embed_dim: int, channels: Sequence[int], text_cfg: Mapping[str, Any]):
        super().__init__()
        self.visual = ConvTower(channels, embed_dim)
        self.text = TextTransformer(**text_cfg, output_dim=embed_dim)
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.context_length = self.text.context_length

    def encode_image(self, images: Tensor) -> Tensor:
        features: Tensor = self.visual(images)
        return features

    def encode_text(self, tokens: Tensor) -> Tensor:
        features: Tensor = self.text(tokens)
        return features


class Probe(nn.Module):
    """Reads all factors from images [N, 3, 64, 64] in [-1, 1] of any domain, without knowing the domain.

    A first tower reads the whole image. A second one reads the face, aligned with the pose that the first one reads,
    and its outputs are added.
    """

    def __init__(self, channels: Sequence[int], face_channels: Sequence[int], face_width: int):
        super().__init__()
        self.tower = ConvTower(channels, NUM_READINGS)
        self.face = FaceTower(face_channels, face_width)

    def outputs(self, images: Tensor) -> Tensor:
        """Raw outputs [N, NUM_READINGS]; `readings` splits them into factors."""
        whole: Tensor = self.tower(images)
        face: Tensor = self.face(align_faces(images, readings(whole)))
        return whole + face

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Factor name -> positions u [N] or class logits [N, classes], also for factors that are not visible."""
        return readings(self.outputs(images))


def readings(outputs: Tensor) -> dict[str, Tensor]:
    """Splits outputs [N, NUM_READINGS] by factor: positions u [N] of scalars, logits [N, classes] of class factors.

    An output of zero is the middle position, u = 0.5, of a scalar.
    """
    parts = torch.split(outputs, [len(factor.classes) or 1 for factor in FACTORS], dim=1)
    return {f.name: part if f.is_class else part[:, 0] + 0.5 for f, part in zip(FACTORS, parts, strict=True)}


def build_guidance_encoder() -> CLIP:
    """A guidance encoder with random weights."""
    model = CLIP(**GUIDANCE_CONFIG).to(memory_format=torch.channels_last)
    for name, parameter in model.visual.named_parameters():
        if name.endswith("bn3.weight"):  # open_clip's initial zeros make training start slowly
            nn.init.constant_(parameter, 0.5)
    return model


def tokenize(texts: Sequence[str]) -> Tensor:
    """Token ids [N, CONTEXT_LENGTH] of open_clip's tokenizer."""
    tokens: Tensor = _TOKENIZER(list(texts))
    return tokens


_TOKENIZER = open_clip.SimpleTokenizer(context_length=CONTEXT_LENGTH)


def encode_tokens(model: CLIP | Evaluator, tokens: Tensor) -> Tensor:
    """Text features [N, embed_dim], equal to `model.encode_text` but computed on the length of the longest text only.

    The text tower is causal, so tokens after the end token do not affect the result.
    """
    tower: Any = getattr(model, "text", model)
    ends = tokens.argmax(dim=1)  # the end token has the highest id
    length = int(ends.max()) + 1
    x = tower.token_embedding(tokens[:, :length]) + tower.positional_embedding[:length]
    x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[:length, :length]))
    features: Tensor = x[torch.arange(len(x)), ends] @ tower.text_projection
    return features


def weights_path(name: str) -> Path:
    """The path of a shipped file, such as "guide" (guidance encoder), "judge" (held-out evaluator) or "probe"."""
    return weights_folder() / f"{name}.safetensors"


def weights_folder() -> Path:
    """The folder of the shipped files."""
    with as_file(files("zeroshift.miniature") / "weights") as path:
        return path


def save_encoder(model: CLIP | Evaluator, path: str | Path) -> None:
    """Writes a guidance encoder or held-out evaluator in half precision, as a self-contained file."""
    config = {"open_clip_config": GUIDANCE_CONFIG} if isinstance(model, CLIP) else {"judge_config": EVALUATOR_CONFIG}
    metadata = {
        **config,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "templates": TEMPLATES,
        "known_words": known_words(),
        "known_labels": known_labels(),
    }
    _save(model, path, metadata)


def save_probe(probe: Probe, path: str | Path) -> None:
    """Writes a probe in half precision with its configuration."""
    _save(probe, path, {"probe_config": PROBE_CONFIG})


def load_evaluator(path: str | Path | None = None, device: str | torch.device = "cpu") -> Encoder:
    """The held-out evaluator as an `Encoder`; the shipped one by default. It must never guide an adaptation.

    Raises:
        ZeroshiftError: if the file is missing, damaged or of another kind.
    """
    path = path or weights_path("judge")
    state, metadata = _read(path, "judge_config")
    config = matches(_EvaluatorConfig, _json(path, metadata, "judge_config"), f"judge_config in {path}")
    texts = matches(EncoderTexts, {name: _json(path, metadata, name) for name in _TEXTS}, f"The metadata of {path}")
    model = build(lambda: Evaluator(**config.model_dump(exclude_unset=True)), state, str(path))
    try:
        encoder = Encoder(
            model, open_clip.SimpleTokenizer(context_length=model.context_length),
            image_mean=texts.image_mean, image_std=texts.image_std, templates=texts.templates or TEMPLATES,
            known_words=texts.known_words, known_labels=texts.known_labels or (),
        )  # fmt: skip
    except ZeroshiftError as error:
        raise ZeroshiftError(f"{path} cannot be used as an evaluator. {error}") from error
    return encoder.to(device)


def load_probe(path: str | Path | None = None, device: str | torch.device = "cpu") -> Probe:
    """The probe, frozen, in eval mode; the shipped one by default.

    Raises:
        ZeroshiftError: if the file is missing, damaged or of another kind.
    """
    path = path or weights_path("probe")
    state, metadata = _read(path, "probe_config")
    config = matches(_ProbeConfig, _json(path, metadata, "probe_config"), f"probe_config in {path}")
    probe = build(lambda: Probe(**config.model_dump()), state, str(path))
    return probe.eval().requires_grad_(False).to(device)


def load_weights(model: CLIP | Evaluator | Probe, path: str | Path) -> None:
    """Loads the weights that `save_encoder` or `save_probe` wrote into a model, to continue its training.

    Raises:
        ZeroshiftError: if the file is missing, damaged or of another kind or size.
    """
    kinds = {CLIP: "open_clip_config", Evaluator: "judge_config", Probe: "probe_config"}
    state, _ = _read(path, kinds[type(model)])
    load_into(model, state, str(path))


def _save(model: nn.Module, path: str | Path, metadata: Mapping[str, Any]) -> None:
    tensors = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    save_tensors(path, tensors, {name: json.dumps(value) for name, value in metadata.items()})


def _read(path: str | Path, needed: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    state, metadata = read_safetensors(Path(path))
    if needed not in metadata:
        raise ZeroshiftError(f"{path} contains another kind of model: its metadata has no {needed!r}.")
    return state, metadata


def _json(path: str | Path, metadata: Mapping[str, str], name: str) -> Any:
    return parse_json(metadata.get(name, "null"), f"{name} in {path}")
