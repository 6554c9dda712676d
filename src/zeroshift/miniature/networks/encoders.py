"""Architectures of the miniature world's guide, judge and probe, and their files.

The guide is a plain `open_clip.CLIP`; the judge has a convolutional image tower instead and a narrower text tower, so
that what fools one need not fool the other; the probe is a convolutional network that reads factors.
"""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.transformer import TextTransformer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from zeroshift.clip.encoder import Encoder
from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import atomic_write
from zeroshift.miniature.networks.alignment import CROP, align_faces
from zeroshift.miniature.world.captions import TEMPLATES, known_labels, known_words
from zeroshift.miniature.world.factors import FACTORS

__all__ = [
    "GUIDE_CONFIG", "JUDGE_CONFIG", "NUM_READINGS", "PROBE_CONFIG", "ConvTower", "Judge", "Probe", "build_guide",
    "encode_tokens", "load_judge", "load_probe", "load_weights", "readings", "save_encoder", "save_probe", "tokenize",
    "weights_folder", "weights_path",
]  # fmt: skip

CONTEXT_LENGTH = 64  # the longest captions have about 55 tokens
VOCABULARY = 49408  # open_clip's own tokenizer

# open_clip's JSON form
GUIDE_CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    # As in CLIP's RN50: bottlenecks and attention pooling.
    "vision_cfg": {"image_size": 64, "layers": [1, 2, 2, 1], "width": 24, "head_width": 64},
    "text_cfg": {"context_length": CONTEXT_LENGTH, "vocab_size": VOCABULARY, "width": 96, "heads": 3, "layers": 2},
}  # fmt: skip
JUDGE_CONFIG: dict[str, Any] = {
    "embed_dim": 128,
    "channels": [32, 64, 128, 192],
    "text_cfg": {"context_length": CONTEXT_LENGTH, "vocab_size": VOCABULARY, "width": 64, "heads": 2, "layers": 2},
}
PROBE_CONFIG: dict[str, Any] = {"channels": [32, 64, 128, 192], "face_channels": [32, 48], "face_width": 256}

NUM_READINGS = sum(len(factor.classes) or 1 for factor in FACTORS)  # one number a scalar, one logit a class


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv0 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm0 = nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        same = inputs == outputs and stride == 1
        self.skip = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.skip(x) + self.norm1(self.conv1(F.relu(self.norm0(self.conv0(x))))))


class ConvTower(nn.Module):
    """A residual network with one block a width: [N, 3, 64, 64] -> [N, out_dim].

    The last map [4, 4] is not averaged but flattened behind a narrow 1x1 convolution: where things are matters.
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

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.contiguous(memory_format=torch.channels_last)
        x = self.blocks(F.relu(self.norm(self.stem(x))))
        return self.head(torch.cat([x.mean(dim=(2, 3)), F.relu(self.narrow(x)).flatten(1)], dim=1))


class FaceTower(nn.Module):
    """Aligned faces [N, 3, CROP, CROP] -> [N, NUM_READINGS], zeros when fresh.

    Everybody's features lie in the same places here, so a wide linear layer looks at all places of a fine map at once.
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

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        x = faces.contiguous(memory_format=torch.channels_last)
        x = F.relu(self.narrow(self.blocks(F.relu(self.norm(self.stem(x))))))
        return self.head(F.relu(self.wide_norm(self.wide(x.flatten(1)))))


class Judge(nn.Module):
    """The shell of `open_clip.CustomTextCLIP` around a ConvTower."""

    def __init__(self, embed_dim: int, channels: Sequence[int], text_cfg: Mapping[str, Any]):
        super().__init__()
        self.visual = ConvTower(channels, embed_dim)
        self.text = TextTransformer(**text_cfg, output_dim=embed_dim)
        self.logit_scale = nn.Parameter(torch.tensor(1 / 0.07).log())
        self.context_length = self.text.context_length

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        return self.visual(images)

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.text(tokens)


class Probe(nn.Module):
    """Reads all factors from images [N, 3, 64, 64] in [-1, 1] of any domain; the domain is not told.

    A first tower reads the whole picture; a second one adds what it sees in the face, laid out by the first one's
    reading of its pose.
    """

    def __init__(self, channels: Sequence[int], face_channels: Sequence[int], face_width: int):
        super().__init__()
        self.tower = ConvTower(channels, NUM_READINGS)
        self.face = FaceTower(face_channels, face_width)

    def outputs(self, images: torch.Tensor) -> torch.Tensor:
        """[N, NUM_READINGS], see `readings`."""
        whole = self.tower(images)
        return whole + self.face(align_faces(images, readings(whole)))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Factor name -> positions u [N] of a scalar, or logits [N, classes]; also for factors that do not show."""
        return readings(self.outputs(images))


def readings(outputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Cuts [N, NUM_READINGS] into factors: positions [N] of a scalar, logits [N, classes] of a class factor.

    Outputs of zero mean the middle of a scalar.
    """
    parts = outputs.split([len(factor.classes) or 1 for factor in FACTORS], dim=1)
    return {f.name: part if f.is_class else part[:, 0] + 0.5 for f, part in zip(FACTORS, parts, strict=True)}


def build_guide() -> CLIP:
    """The guide with fresh weights."""
    guide = CLIP(**GUIDE_CONFIG).to(memory_format=torch.channels_last)
    for name, parameter in guide.visual.named_parameters():
        if name.endswith("bn3.weight"):  # open_clip begins with zero: branches that add nothing take long to wake
            nn.init.constant_(parameter, 0.5)
    return guide


def tokenize(texts: Sequence[str]) -> torch.Tensor:
    """open_clip's token ids [N, CONTEXT_LENGTH]."""
    return _TOKENIZER(list(texts))


_TOKENIZER = open_clip.SimpleTokenizer(context_length=CONTEXT_LENGTH)


def encode_tokens(model: CLIP | Judge, tokens: torch.Tensor) -> torch.Tensor:
    """Text features [N, embed_dim] at the cost of the longest text, not of the whole context.

    The text tower is causal, so tokens past the end token change nothing: equal to `model.encode_text`.
    """
    tower: Any = getattr(model, "text", model)
    ends = tokens.argmax(dim=1)  # the end token has the highest id
    length = int(ends.max()) + 1
    x = tower.token_embedding(tokens[:, :length]) + tower.positional_embedding[:length]
    x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[:length, :length]))
    return x[torch.arange(len(x)), ends] @ tower.text_projection


def weights_path(name: str) -> Path:
    """Where the shipped file of "guide", "judge" or "probe" lies."""
    return weights_folder() / f"{name}.safetensors"


def weights_folder() -> Path:
    """Where all shipped files lie."""
    with as_file(files("zeroshift.miniature") / "weights") as path:
        return path


def save_encoder(model: CLIP | Judge, path: str | Path) -> None:
    """Writes a guide or judge, in half precision, as the self-contained file that docs/architecture.md describes."""
    config = {"open_clip_config": GUIDE_CONFIG} if isinstance(model, CLIP) else {"judge_config": JUDGE_CONFIG}
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
    """Writes a probe, in half precision, with its `probe_config`."""
    _save(probe, path, {"probe_config": PROBE_CONFIG})


def load_judge(path: str | Path | None = None, device: str | torch.device = "cpu") -> Encoder:
    """The judge behind the interface of all encoders; it never guides, only measures.

    Raises:
        ZeroshiftError: if the file is missing, damaged or no judge.
    """
    metadata, state = _load(path or weights_path("judge"), "judge_config")
    model = Judge(**metadata["judge_config"])
    model.load_state_dict(state)
    encoder = Encoder(
        model, open_clip.SimpleTokenizer(context_length=model.context_length),
        image_mean=metadata["image_mean"], image_std=metadata["image_std"], templates=metadata["templates"],
        known_words=metadata["known_words"], known_labels=metadata["known_labels"],
    )  # fmt: skip
    return encoder.to(device)


def load_probe(path: str | Path | None = None, device: str | torch.device = "cpu") -> Probe:
    """The probe, frozen, in eval mode.

    Raises:
        ZeroshiftError: if the file is missing, damaged or no probe.
    """
    metadata, state = _load(path or weights_path("probe"), "probe_config")
    probe = Probe(**metadata["probe_config"])
    probe.load_state_dict(state)
    return probe.eval().requires_grad_(False).to(device)


def load_weights(model: CLIP | Judge | Probe, path: str | Path) -> None:
    """Puts the weights of a file that `save_encoder` or `save_probe` wrote into a model, for training to go on from.

    Raises:
        ZeroshiftError: if the file is missing, damaged or of another model.
    """
    kinds = {CLIP: "open_clip_config", Judge: "judge_config", Probe: "probe_config"}
    _, state = _load(path, kinds[type(model)])
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ZeroshiftError(f"{path} holds weights of other sizes: {error}") from error


def _save(model: nn.Module, path: str | Path, metadata: Mapping[str, Any]) -> None:
    tensors = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in model.state_dict().items()
    }
    with atomic_write(path) as temporary:
        save_file(tensors, temporary, {name: json.dumps(value) for name, value in metadata.items()})


def _load(path: str | Path, needed: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = {name: json.loads(value) for name, value in (file.metadata() or {}).items()}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError, ValueError) as error:
        raise ZeroshiftError(f"{path} cannot be read as a safetensors file of the miniature world: {error}.") from error
    if needed not in metadata:
        raise ZeroshiftError(f"{path} holds another kind of model: its metadata has no {needed!r}.")
    return metadata, state
