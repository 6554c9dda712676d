"""A bridge from the text features of an encoder to its image features, and words for describing images.

Contrastive training leaves texts and images in different regions of the feature space (Liang et al., "Mind the gap",
NeurIPS 2022), so the way from one text to another is not the way from one image to another. A regression on captioned
images predicts the image feature from the text feature, as the prior of DALL-E 2 does with a large network (Ramesh et
al., "Hierarchical text-conditional image generation with CLIP latents", 2022, section 2.2). Here it is linear.

With it, captions alone tell where an image lies in another domain: "a photo, fair skin, round glasses" and "a marble
statue, round glasses" give a source and a target feature, and a second regression over many such pairs predicts the
shift from the source feature (`shift_map`). `zeroshift bridge` fits a bridge; the embedded encoder ships one.
"""

import json
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, RootModel, StringConstraints
from torch import Tensor

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.weights import read_safetensors
from zeroshift.core.registry import Registry
from zeroshift.core.words import article
from zeroshift.errors import ZeroshiftError
from zeroshift.io.checksums import save_tensors
from zeroshift.io.foreign import matches, parse_json

__all__ = [
    "BRIDGES", "STRENGTH", "Attributes", "Bridge", "LinearMap", "caption_pairs", "count_mentions", "fit_bridge",
    "load_bridge", "packaged_bridge", "ridge", "save_bridge", "shift_map", "unit_text_features",
]  # fmt: skip

BRIDGES: "Registry[Callable[[], Bridge]]" = Registry("bridge", "zeroshift.bridges")
"""Functions `() -> Bridge` by the name of the encoder. Entry points: "zeroshift.bridges"."""

_CAPTIONS = 64  # encoded at once
_PROBES = ("a photo", "a person with long hair", "a pencil sketch")  # texts that tell encoders apart
_SAME = 0.999  # cosine above which two features are of the same encoder; half precision keeps more
STRENGTH = 0.01  # of the regression from texts to images
_SHIFT_STRENGTH = 0.3  # of the regression from source features to shifts; docs/compass.md
_FEWEST, _MOST = 3, 7  # attributes in a caption
_HELD_OUT = 10  # every tenth image only measures the fit
_FEWEST_IMAGES = 4  # per dimension of the features
_ENOUGH = 50  # captions with a word, from which missing attributes are concluded
_RARE = 0.1  # share of the usual frequency below which an attribute counts as missing
_MAX_WORDS = 2000  # words whose attributes are counted, the most frequent ones
_LEADING = re.compile(r"^(with|in|on|wearing) ")  # "with a hat" is also mentioned by "with a beard and a hat"
_BETWEEN = r"(?: (?!and |with |in |on |of )[^ ,]+){0,3} "  # further adjectives: "long (wavy brown) hair"


class LinearMap(NamedTuple):
    """x -> x weight + bias, from [N, inputs] to [N, outputs]."""

    weight: Tensor  # [inputs, outputs]
    bias: Tensor  # [outputs]

    def __call__(self, x: Tensor) -> Tensor:
        """The map of rows [N, inputs] -> [N, outputs]."""
        return x @ self.weight + self.bias


class _Moments:
    """Sums over rows, from which a linear regression follows. Double precision: sums of products are differenced."""

    def __init__(self) -> None:
        self._sums: list[Tensor] = []

    def add(self, inputs: Tensor, outputs: Tensor) -> None:
        """Adds rows [N, inputs] and [N, outputs]."""
        x, y = inputs.double(), outputs.double()
        one = torch.tensor(float(len(x)), dtype=torch.float64, device=x.device)
        new = [one, x.sum(dim=0), y.sum(dim=0), x.T @ x, x.T @ y]
        self._sums = [old + more for old, more in zip(self._sums, new, strict=True)] if self._sums else new

    def fit(self, strength: float) -> LinearMap:
        """The regression with a penalty of `strength` times the mean variance of an input."""
        count, x, y, xx, xy = self._sums
        covariance = xx / count - torch.outer(x, x) / count**2
        penalty = strength * covariance.diagonal().mean() * torch.eye(len(x), dtype=x.dtype, device=x.device)
        weight = torch.linalg.lstsq(covariance + penalty, xy / count - torch.outer(x, y) / count**2).solution
        return LinearMap(weight.float(), ((y - x @ weight) / count).float())


def ridge(inputs: Tensor, outputs: Tensor, strength: float) -> LinearMap:
    """Linear regression of outputs [N, O] on inputs [N, I] with a penalty on the squared weights.

    Args:
        strength: the penalty, relative to the mean variance of an input. Larger values draw predictions to the mean.
    """
    moments = _Moments()
    moments.add(inputs, outputs)
    return moments.fit(strength)


_Phrase = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
_Phrases = Annotated[tuple[_Phrase, ...], Field(min_length=1)]


class Attributes(RootModel[dict[str, _Phrases]]):
    """What captions can say about an image: alternative phrases by attribute, {"glasses": ["round glasses", ...]}.

    Phrases follow the label after commas, so "round glasses" and "with round glasses" are both possible.
    """

    root: dict[str, _Phrases] = Field(min_length=_FEWEST)


class _Mention(BaseModel):
    """How often captions with a word mention each attribute."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    captions: PositiveInt
    attributes: dict[str, NonNegativeInt]


class _Mentions(RootModel[dict[str, _Mention]]):
    pass


@dataclass(frozen=True)
class Bridge:
    """A linear map from the unit text features of an encoder to its unit image features, and words for captions.

    Attributes:
        map: from text features [N, E] to image features [N, E].
        attributes: alternative phrases by attribute.
        mentions: how often the captions of the training images with a word mention each attribute; the empty word
            counts all captions.
        probes: [3, E], unit features of three texts, by which `require_encoder` knows the encoder.
        explained: fraction of the variance of image features that the map predicts, on every tenth image, which the
            fit leaves out.
    """

    map: LinearMap
    attributes: Mapping[str, tuple[str, ...]]
    mentions: Mapping[str, _Mention]
    probes: Tensor
    explained: float

    def described(self, label: str) -> frozenset[str]:
        """The attributes that captions with the words of a label mention.

        An attribute is left out if some word of the label stands in at least 50 captions of the training images, and
        they mention the attribute less than a tenth as often as other captions do: what people do not say about marble
        statues, such as the color of their hair, is probably not visible. A new word leaves out nothing.
        """
        everything = self.mentions[""]
        left_out = set()
        for word in re.findall(r"\w+", label.lower()):
            mention = self.mentions.get(word)
            if mention is None or mention.captions < _ENOUGH:
                continue
            for name in self.attributes:
                usual = everything.attributes[name] / everything.captions * mention.captions
                if mention.attributes[name] < _RARE * usual:
                    left_out.add(name)
        return frozenset(self.attributes) - left_out

    def require_encoder(self, encoder: Encoder, name: str) -> None:
        """Checks that the bridge was fitted for this encoder.

        Args:
            name: of the encoder, for the message.

        Raises:
            ZeroshiftError: if it was fitted for another one.
        """
        if self.probes.shape[1] == encoder.embed_dim:
            found = F.normalize(encoder.encode_text(_PROBES), dim=-1).float().cpu()
            if (F.cosine_similarity(found, self.probes) > _SAME).all():
                return
        raise ZeroshiftError(
            f"The bridge was fitted for another encoder than {name}. Fit one with 'zeroshift bridge --encoder {name}'."
        )


def caption_pairs(bridge: Bridge, source: str, target: str, num: int) -> tuple[list[str], list[str]]:
    """Captions of `num` random people with the source label, and of the same people with the target label.

    A caption is the label and three to seven attributes, in random order, after commas. Attributes that captions with
    the words of a label do not mention (`Bridge.described`) are left out.
    """
    rng = random.Random("captions/0")
    names = sorted(bridge.described(source))
    kept = bridge.described(target)
    sources, targets = [], []
    for _ in range(num):
        drawn = rng.sample(names, min(len(names), rng.randint(_FEWEST, _MOST)))
        phrases = [(name, rng.choice(bridge.attributes[name])) for name in drawn]
        sources.append(", ".join([f"{article(source)} {source}", *(phrase for _, phrase in phrases)]))
        said = (phrase for name, phrase in phrases if name in kept)
        targets.append(", ".join([f"{article(target)} {target}", *said]))
    return sources, targets


def shift_map(bridge: Bridge, encoder: Encoder, source: str, target: str, num: int) -> LinearMap:
    """Predicts the shift of a unit image feature from the source to the target domain: [N, E] -> [N, E].

    A regression over `num` pairs of captions. The target feature of an image with unit feature x is x + shift(x).
    """
    before, after = (
        bridge.map(unit_text_features(encoder, texts).cpu()) for texts in caption_pairs(bridge, source, target, num)
    )
    weight, bias = ridge(before, after - before, _SHIFT_STRENGTH)
    return LinearMap(weight.to(encoder.device), bias.to(encoder.device))


def unit_text_features(encoder: Encoder, texts: Sequence[str]) -> Tensor:
    """Unit features [N, E] of texts, float32. Words beyond the encoder's context are left out."""
    parts = []
    for first in range(0, len(texts), _CAPTIONS):
        parts.append(encoder.encode_text([encoder.shortened(text) for text in texts[first : first + _CAPTIONS]]))
    return F.normalize(torch.cat(parts).float(), dim=-1)


def fit_bridge(
    encoder: Encoder,
    batches: Iterable[tuple[Tensor, Sequence[str]]],
    attributes: Mapping[str, tuple[str, ...]],
) -> Bridge:
    """Fits a bridge to captioned images.

    Args:
        batches: images [N, 3, H, W] in [-1, 1], and N captions.
        attributes: alternative phrases by attribute, for `caption_pairs`.

    Raises:
        ZeroshiftError: if there are fewer than four pairs for each dimension of the features, or all images have the
            same feature.
    """
    moments = _Moments()
    said: list[str] = []
    held_out = []
    for images, captions in batches:
        with torch.no_grad():
            found = F.normalize(encoder.encode_image(images.to(encoder.device)).float(), dim=-1).cpu()
        texts = unit_text_features(encoder, captions).cpu()
        out = torch.arange(len(said), len(said) + len(captions)) % _HELD_OUT == 0
        moments.add(texts[~out], found[~out])
        held_out.append((texts[out], found[out]))
        said += captions
    if len(said) < _FEWEST_IMAGES * encoder.embed_dim:
        raise ZeroshiftError(
            f"{len(said)} captioned images are too few for an encoder with {encoder.embed_dim} dimensions. Give at "
            f"least {_FEWEST_IMAGES * encoder.embed_dim}."
        )
    texts, found = (torch.cat(rows) for rows in zip(*held_out, strict=True))
    if not found.var(dim=0).sum() > 0:
        raise ZeroshiftError("The encoder sees no difference between the images. Give different ones.")
    fitted = moments.fit(STRENGTH)
    explained = 1 - (fitted(texts) - found).square().sum() / (found - found.mean(dim=0)).square().sum()
    probes = F.normalize(encoder.encode_text(_PROBES), dim=-1).float().cpu()
    return Bridge(fitted, dict(attributes), count_mentions(said, attributes), probes, explained.item())


def count_mentions(captions: Sequence[str], attributes: Mapping[str, tuple[str, ...]]) -> dict[str, _Mention]:
    """How often captions with a word mention each attribute; the empty word counts all captions.

    The words of a phrase may have up to three further words between them: "long wavy brown hair" mentions "long hair".
    """
    patterns = {name: re.compile("|".join(map(_pattern, phrases))) for name, phrases in attributes.items()}
    counts: dict[str, list[int]] = {}
    for caption in captions:
        lower = caption.lower()
        found = [pattern.search(lower) is not None for pattern in patterns.values()]
        for word in {"", *re.findall(r"\w+", lower)}:
            row = counts.setdefault(word, [0] * (1 + len(found)))
            row[0] += 1
            for index, value in enumerate(found, start=1):
                row[index] += value
    frequent = sorted(counts, key=lambda word: (-counts[word][0], word))[:_MAX_WORDS]  # the empty word is the first
    return {
        word: _Mention(captions=counts[word][0], attributes=dict(zip(patterns, counts[word][1:], strict=True)))
        for word in frequent
    }


def _pattern(phrase: str) -> str:
    words = _LEADING.sub("", phrase.lower()).split()
    return r"\b" + _BETWEEN.join(map(re.escape, words)) + r"\b"


def save_bridge(bridge: Bridge, path: Path) -> None:
    """Writes a bridge as a safetensors file. Nothing in it is code."""
    metadata = {
        "explained": json.dumps(bridge.explained),
        "attributes": Attributes(dict(bridge.attributes)).model_dump_json(),
        "mentions": _Mentions(dict(bridge.mentions)).model_dump_json(),
    }
    tensors = {"weight": bridge.map.weight, "bias": bridge.map.bias, "probes": bridge.probes}
    save_tensors(path, tensors, metadata)


def load_bridge(path: Path) -> Bridge:
    """Reads a bridge.

    Raises:
        ZeroshiftError: if the file is missing, damaged or of another kind.
    """
    tensors, metadata = read_safetensors(path)
    dim = tensors["bias"].numel() if "bias" in tensors else 0
    wanted = {"weight": (dim, dim), "bias": (dim,), "probes": (len(_PROBES), dim)}
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != wanted or "attributes" not in metadata:
        raise ZeroshiftError(f"{path} is not a bridge. 'zeroshift bridge' writes such files.")
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise ZeroshiftError(f"{path} is damaged: it holds numbers that are not finite.")
    place = f"the metadata of {path}"
    attributes = matches(Attributes, parse_json(metadata["attributes"], place), place).root
    mentions = matches(_Mentions, parse_json(metadata.get("mentions", "{}"), place), place).root
    if "" not in mentions or any(set(mention.attributes) != set(attributes) for mention in mentions.values()):
        raise ZeroshiftError(f"{path} is damaged: its counts do not match its attributes.")
    explained = parse_json(metadata.get("explained", "0"), place)
    if not isinstance(explained, int | float):
        raise ZeroshiftError(f"{path} is damaged: its measure of the fit is no number.")
    floats = {name: tensor.float() for name, tensor in tensors.items()}
    return Bridge(LinearMap(floats["weight"], floats["bias"]), attributes, mentions, floats["probes"], float(explained))


@cache
def packaged_bridge(name: str) -> Bridge | None:
    """The bridge of a registered encoder; None if it has none."""
    return BRIDGES[name]() if name in BRIDGES else None
