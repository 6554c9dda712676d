"""CLIP encoders: any open_clip model behind one small interface, frozen, for images of any size, texts and prompts."""

import difflib
import math
import re
import warnings
from bisect import bisect_left
from collections.abc import Callable, Collection, Sequence
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from zeroshift.core.dtypes import at_least_float32
from zeroshift.errors import ZeroshiftError

__all__ = ["Encoder", "Tokenizer", "published_templates", "shorten"]

_SLOT = "{}"  # the place of the label in a template
_MAX_TEMPLATES, _MAX_TEMPLATE = 2000, 400  # number, and characters of one
_ROOM = 256  # tokens beyond the context that are tokenized to detect texts that are too long

Tokenizer = Callable[..., Tensor]  # (texts, context_length=) -> ids [N, context_length]


@lru_cache(maxsize=1)
def published_templates() -> tuple[str, ...]:
    """The 79 templates of the published programs: open_clip's 80, in order, without one."""
    import open_clip  # takes seconds: `--help` and errors do without

    texts = (template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)
    return tuple(text for text in texts if text != "a photo of many {}.")


class Encoder(nn.Module):
    """A frozen open_clip model, always in eval mode. Images may have any size.

    Args:
        model: an `open_clip.CLIP`, or a model whose text tower is a separate module (`CustomTextCLIP`, `CoCa`).
        tokenizer: the tokenizer of the model.
        image_mean, image_std: normalization of images in [0, 1], three finite numbers each, standard deviations > 0.
        templates: texts with one "{}" and no other braces, in which `label_feature` puts a label; None: those of the
            published programs.
        known_words, known_labels: all words and some labels of the training data, if available.
        resize: "antialias", or "published": bicubic without antialiasing, as in the published NADA and IPL programs.
    Raises:
        ZeroshiftError: templates, mean or deviation that cannot be used.
    """

    model: Any
    _tower: Any

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        *,
        image_mean: Sequence[float],
        image_std: Sequence[float],
        templates: Sequence[str] | None = None,
        known_words: Collection[str] | None = None,
        known_labels: Sequence[str] = (),
        resize: str = "antialias",
    ):
        super().__init__()
        templates = published_templates() if templates is None else templates
        _check_templates(templates)
        _check_normalization(image_mean, image_std)
        self.model = model.to(torch.get_default_dtype()).requires_grad_(False)
        self.eval()
        self._tower = getattr(model, "text", model)
        self._tokenizer = tokenizer
        self.image_mean, self.image_std = list(image_mean), list(image_std)
        self.templates, self.known_labels = tuple(templates), tuple(known_labels)
        self.known_words = None if known_words is None else frozenset(known_words)
        self._antialias = resize == "antialias"
        size = model.visual.image_size
        self.image_size: tuple[int, int] = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        self.context_length: int = model.context_length
        self.logit_scale = float(model.logit_scale.exp())

        empty, one, other = tokenizer(["", "a", "dog"])
        self._pad_id = int(empty[-1])
        self._num_marks = int((empty != self._pad_id).sum())  # start and end tokens of a text
        self._num_start = int(one[0] == other[0])  # SigLIP has no start token
        self._placeholder = int(one[self._num_start])  # at the positions of context vectors; neither padding nor end
        self._ids = lru_cache(maxsize=1024)(self._tokenize)  # ids [context_length] of a text
        self._causal = self._causal_features  # compiled on request
        self.embed_dim: int = self.encode_text([""]).shape[1]

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        parameter: Tensor = next(self.model.parameters())
        return parameter.device

    @property
    def width(self) -> int:
        """Width of the token embeddings, and so of context vectors."""
        return self._embedding.weight.shape[1]

    @property
    def image_tower(self) -> nn.Module:
        """The module that encodes images."""
        tower: nn.Module = self.model.visual
        return tower

    def compile_towers(self, **options: Any) -> None:
        """Compiles both towers: the encoding of images, and of texts and prompts if the text tower is causal.

        Args:
            options: of `torch.compile`.
        """
        self.image_tower.compile(**options)
        self._causal = torch.compile(self._causal_features, **options)

    def train(self, mode: bool = True) -> "Encoder":
        """Stays in eval mode, because the model is frozen."""
        return super().train(False)

    def encode_image(self, images: Tensor) -> Tensor:
        """Differentiable features [N, embed_dim], not normalized, of images [N, 3, H, W] in [-1, 1].

        Images of another size than `image_size` are scaled, keeping their proportions, until they just cover it; the
        center is then cropped. This holds for square and rectangular sizes.
        """
        return at_least_float32(self.model.encode_image(self._preprocess(images)))

    def encode_with_maps(self, images: Tensor, levels: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """`encode_image`, and feature maps [N, C, h, w] on the way, all differentiable.

        Args:
            images: [N, 3, H, W] in [-1, 1].
            levels: numbers of blocks of the image tower, from 0. A ResNet has five (stem, four stages); the levels of
                a vision transformer are its blocks, whose patch tokens are arranged as a map (no class token).
        """
        if not levels:
            return self.encode_image(images), []
        # The last level is always requested: without it, some towers of open_clip stop early.
        outputs = self._intermediates(self._preprocess(images), [*levels, self.num_levels - 1])
        maps = [at_least_float32(each) for each in outputs["image_intermediates"]]
        order = sorted({*levels, self.num_levels - 1})  # each level is returned once, in order
        return at_least_float32(outputs["image_features"]), [maps[order.index(level)] for level in levels]

    @cached_property
    def num_levels(self) -> int:
        """Number of levels of the image tower that `encode_with_maps` can return.

        Raises:
            ZeroshiftError: if the tower gives no feature maps.
        """
        blank = torch.zeros(1, 3, *self.image_size, device=self.device)
        with torch.no_grad():
            return len(self._intermediates(blank, None)["image_intermediates"])

    def _intermediates(self, images: Tensor, levels: list[int] | None) -> dict[str, Any]:
        tower: Any = self.image_tower
        if not hasattr(tower, "forward_intermediates"):
            raise ZeroshiftError(
                f"The image tower of this encoder ({type(tower).__name__}) gives no feature maps, which the method "
                "needs. Choose another encoder, or another method (ipl, nada)."
            )
        result: dict[str, Any] = tower.forward_intermediates(images, indices=levels)
        return result

    def _preprocess(self, images: Tensor) -> Tensor:
        """Images resized to the tower's resolution and normalized."""
        from torchvision.transforms.v2 import InterpolationMode  # takes seconds
        from torchvision.transforms.v2.functional import center_crop, normalize, resize

        if images.shape[-2:] != self.image_size:
            size = _covering_size(images.shape[-2], images.shape[-1], *self.image_size)
            images = resize(images, size, InterpolationMode.BICUBIC, antialias=self._antialias)
            images = center_crop(images, list(self.image_size))
        # (x + 1) / 2 and the model's normalization in one pass
        mean, std = [2 * value - 1 for value in self.image_mean], [2 * value for value in self.image_std]
        normalized: Tensor = normalize(images, mean, std)
        return normalized

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Features [N, embed_dim] of texts, not normalized.

        Raises:
            ZeroshiftError: if a text is longer than the model's context.
        """
        ids = torch.stack([self._ids(text) for text in texts])
        return self._encode(ids, torch.empty(len(ids), 0, 0, device=self.device))

    def shortened(self, text: str) -> str:
        """A text without the last words that are too many for the model's context."""
        words = text.split()

        def too_long(count: int) -> bool:
            try:
                self._ids(" ".join(words[:count]))
            except ZeroshiftError:
                return True
            return False

        if not too_long(len(words)):
            return text
        return " ".join(words[: bisect_left(range(len(words)), True, key=too_long) - 1])

    def encode_prompts(self, context: Tensor, suffixes: str | Sequence[str], replaced: str = "") -> Tensor:
        """Features [N, embed_dim], not normalized, of: start token, context vectors, suffix tokens, end token.

        Args:
            context: [N, m, width]; the result is differentiable with respect to it.
            suffixes: one text for all rows, or one per row.
            replaced: words that the context replaces; their tokens after the first m stay before the suffix.
        Raises:
            ZeroshiftError: if context and suffix together are longer than the model's context.
        """
        texts = [suffixes] * len(context) if isinstance(suffixes, str) else suffixes
        rows = [self._prompt_ids(text, context.shape[1], replaced) for text in texts]
        return self._encode(torch.stack(rows), context)

    def embed_words(self, text: str) -> Tensor:
        """Token embeddings [num_tokens, width] of a text, without start and end token."""
        words = self._ids(text)[self._num_start : self._num_start + self._length(text)]
        embeddings: Tensor = self._embedding(words.to(self.device))
        return embeddings.detach()

    def label_features(self, label: str) -> Tensor:
        """The normalized text features of the label in each template, [T, embed_dim]."""
        features = self.encode_text([template.replace(_SLOT, label) for template in self.templates])
        return nn.functional.normalize(features, dim=-1)

    def label_feature(self, label: str) -> Tensor:
        """Mean of `label_features`, [embed_dim]."""
        return self.label_features(label).mean(dim=0)

    def warn_unknown(self, label: str) -> None:
        """Warns about words in the label that are not in the training data, if the model lists its words."""
        if note := self.unknown_words(label):
            warnings.warn(note, stacklevel=2)

    def unknown_words(self, label: str) -> str:
        """A sentence about words in the label that are not in the training data; empty if there are none."""
        words = re.findall(r"\w+", label.lower()) or [label]  # symbols alone count as an unknown word
        unknown = [
            word for word in dict.fromkeys(words) if self.known_words is not None and word not in self.known_words
        ]
        if unknown:
            near = difflib.get_close_matches(label.lower(), self.known_labels, n=3, cutoff=0)
            hint = f" Similar labels that it was trained on: {', '.join(near)}." if near else ""
            listed = f"the word{'s' if len(unknown) > 1 else ''} {', '.join(map(repr, unknown))}"
            return f"The encoder was not trained on {listed}, so the result may be meaningless.{hint}"
        return ""

    def _tokenize(self, text: str) -> Tensor:
        ids = self._tokenizer([text], context_length=self.context_length + _ROOM)[0]
        if (ids[self.context_length :] != self._pad_id).any():
            raise ZeroshiftError(
                f"The text {shorten(text)!r} is longer than the encoder's {self.context_length} tokens. Shorten it."
            )
        return ids[: self.context_length]

    def _length(self, text: str) -> int:
        """Number of tokens of a text, without start and end token."""
        return int((self._ids(text) != self._pad_id).sum()) - self._num_marks

    def _prompt_ids(self, suffix: str, num_context: int, replaced: str) -> Tensor:
        start, kept = self._num_start, self.context_length - num_context
        ids = self._ids(f"{replaced} {suffix}" if replaced else suffix)
        if gone := min(num_context, self._length(replaced)) if replaced else 0:
            ids = torch.cat([ids[:start], ids[start + gone :], ids.new_full((gone,), self._pad_id)])
        if (ids[kept:] != self._pad_id).any():
            raise ZeroshiftError(
                f"The label {shorten(suffix)!r} and {num_context} context vectors are longer than the encoder's "
                f"{self.context_length} tokens. Shorten the label or take fewer context vectors."
            )
        return torch.cat([ids[:start], ids.new_full((num_context,), self._placeholder), ids[start:kept]])

    @property
    def _embedding(self) -> nn.Embedding:
        embedding: nn.Embedding | None = getattr(self._tower, "token_embedding", None)
        if embedding is None:
            raise ZeroshiftError(
                "The text tower of this encoder is not one of open_clip, so prompts cannot be learned in it. "
                "Choose another encoder."
            )
        return embedding

    def _encode(self, ids: Tensor, context: Tensor) -> Tensor:
        """Features of ids [N, context_length] on the CPU; context [N, m, width] replaces embeddings after the start."""
        if self._is_causal:
            ends = ids.argmax(dim=1) if self._pool_type == "argmax" else torch.eq(ids, self._eos_id).int().argmax(dim=1)
            length = int(ends.max()) + 1  # on the CPU: the device is not waited for
            return at_least_float32(self._causal(ids[:, :length].to(self.device), context))
        ids = ids.to(self.device)
        if not context.shape[1]:
            return at_least_float32(self.model.encode_text(ids))
        # Other towers run unchanged, at full length, with a hook that inserts the context.
        handle = self._embedding.register_forward_hook(lambda module, inputs, output: self._placed(output, context))
        try:
            return at_least_float32(self.model.encode_text(ids))
        finally:
            handle.remove()

    def _placed(self, embeddings: Tensor, context: Tensor) -> Tensor:
        """Embeddings [N, L, width] with context [N, m, width] after the start token, in place of what was there."""
        first, last = self._num_start, self._num_start + context.shape[1]
        if first == last:
            return embeddings
        return torch.cat([embeddings[:, :first], context.to(embeddings.dtype), embeddings[:, last:]], dim=1)

    @property
    def _pool_type(self) -> str:
        return str(getattr(self._tower, "pool_type", None) or getattr(self._tower, "text_pool_type", "none"))

    @property
    def _is_causal(self) -> bool:
        """Whether tokens after the end-of-text token have no effect: causal attention, pooled at that token."""
        causal = getattr(self._tower, "attn_mask", None) is not None and getattr(self._tower, "cls_emb", None) is None
        return causal and self._pool_type in ("argmax", "eos")

    @property
    def _eos_id(self) -> int:
        return int(getattr(self._tower, "eos_id", None) or getattr(self._tower, "text_eos_id", None) or 0)

    def _causal_features(self, ids: Tensor, context: Tensor) -> Tensor:
        """open_clip's text tower up to the last end-of-text token: the same result as at full length, less work.

        Args:
            ids: [N, L], up to that token, on the device.
            context: [N, m, width], in place of the embeddings after the start token.
        """
        from open_clip.transformer import text_global_pool

        tower, length = self._tower, ids.shape[1]
        x: Tensor = self._placed(tower.token_embedding(ids), context) + tower.positional_embedding[:length]
        x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[:length, :length]))
        x = text_global_pool(x, ids, self._pool_type, eos_token_id=self._eos_id)
        projection: Tensor | nn.Linear | None = tower.text_projection
        if projection is None:
            return x
        projected: Tensor = projection(x) if isinstance(projection, nn.Linear) else x @ projection
        return projected


def _check_templates(templates: Sequence[str]) -> None:
    if not 0 < len(templates) <= _MAX_TEMPLATES:
        raise ZeroshiftError(f"An encoder needs 1 to {_MAX_TEMPLATES:,} templates; there are {len(templates):,}.")
    for text in templates:
        if len(text) > _MAX_TEMPLATE:
            raise ZeroshiftError(
                f"The template {shorten(text)!r} has {len(text):,} characters; at most {_MAX_TEMPLATE} are allowed."
            )
        if text.count(_SLOT) != 1 or set("{}") & set(text.replace(_SLOT, "")):
            raise ZeroshiftError(
                f"The template {shorten(text)!r} must have {_SLOT} once, where the label stands, and no other braces, "
                f"such as 'a photo of a {_SLOT}.'"
            )


def _check_normalization(mean: Sequence[float], std: Sequence[float]) -> None:
    if len(mean) != 3 or len(std) != 3 or not all(math.isfinite(value) for value in (*mean, *std)) or min(std) <= 0:
        raise ZeroshiftError(
            f"Images cannot be normalized with mean {shorten(str(list(mean)))} and deviation "
            f"{shorten(str(list(std)))}: both need three finite numbers, and deviations are greater than zero."
        )


def _covering_size(height: int, width: int, to_height: int, to_width: int) -> list[int]:
    """The smallest size of the same proportions that covers another one."""
    if height * to_width <= width * to_height:
        return [to_height, int(to_height * width / height)]
    return [int(to_width * height / width), to_width]


def shorten(text: str, length: int = 40) -> str:
    """The text, cut to `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"
