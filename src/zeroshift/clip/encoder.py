"""CLIP encoders: any open_clip model behind one small interface, frozen, for images of any size, texts and prompts."""

import difflib
import re
import warnings
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Any

import open_clip
import torch
from open_clip.transformer import text_global_pool
from torch import Tensor, nn
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import center_crop, normalize, resize

from zeroshift.core.dtypes import at_least_float32
from zeroshift.errors import ZeroshiftError

__all__ = ["TEMPLATES", "Encoder"]

# The 79 templates of the published programs (method.md): open_clip's, in order, without one.
TEMPLATES: tuple[str, ...] = tuple(
    text
    for text in (template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)
    if text != "a photo of many {}."
)
_ROOM = 256  # how many tokens beyond the context are looked at, to see that a text is too long

Tokenizer = Callable[..., Tensor]  # (texts, context_length=) -> ids [N, context_length]


class Encoder(nn.Module):
    """A frozen open_clip model: always in eval mode, no weight ever gets a gradient.

    Args:
        model: a flat `open_clip.CLIP` or one whose text tower is its own module (`CustomTextCLIP`, `CoCa`).
        tokenizer: the one that goes with it.
        image_mean, image_std: of the images in [0, 1], three numbers each.
        templates: texts with "{}", that a label is seen in.
        known_words, known_labels: all words and some labels that the model was trained on, if that is known.
        resize: "antialias", or "published": plain bicubic and centre crop, as in the published NADA and IPL programs.
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
        templates: Sequence[str] = TEMPLATES,
        known_words: Collection[str] | None = None,
        known_labels: Sequence[str] = (),
        resize: str = "antialias",
    ):
        super().__init__()
        self.model = model.to(torch.get_default_dtype()).requires_grad_(False)
        self.eval()
        self._tower = getattr(model, "text", model)
        self._tokenizer = tokenizer
        self.image_mean, self.image_std = list(image_mean), list(image_std)
        self.templates, self.known_labels = tuple(templates), tuple(known_labels)
        self.known_words = None if known_words is None else frozenset(known_words)
        self._antialias = resize == "antialias"
        size = model.visual.image_size
        self.resolution: int = size if isinstance(size, int) else size[0]
        self.context_length: int = model.context_length
        self.logit_scale = float(model.logit_scale.exp())

        empty, one, other = tokenizer(["", "a", "dog"])
        self._pad_id = int(empty[-1])
        self._num_marks = int((empty != self._pad_id).sum())  # start and end tokens of a text
        self._num_start = int(one[0] == other[0])  # SigLIP's texts have no token of their own at the start
        self._placeholder = int(one[self._num_start])  # stands where context vectors will be; neither padding nor end
        self._ids = lru_cache(maxsize=1024)(self._tokenize)  # [context_length] of a text
        self.embed_dim: int = self.encode_text([""]).shape[1]

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.model.parameters()).device

    @property
    def width(self) -> int:
        """Of the token embeddings, and so of context vectors."""
        return self._embedding.weight.shape[1]

    @property
    def image_tower(self) -> nn.Module:
        """The module that images go through."""
        return self.model.visual

    def train(self, mode: bool = True) -> "Encoder":
        """Stays in eval mode whatever is asked: a frozen model has no other."""
        return super().train(False)

    def encode_image(self, images: Tensor) -> Tensor:
        """Features [N, embed_dim], not normalised, of images [N, 3, H, W] in [-1, 1]; differentiable."""
        if images.shape[-2:] != (self.resolution, self.resolution):
            images = resize(images, [self.resolution], InterpolationMode.BICUBIC, antialias=self._antialias)
            images = center_crop(images, [self.resolution, self.resolution])
        # (x + 1) / 2 and the model's own normalisation in one pass
        mean, std = [2 * value - 1 for value in self.image_mean], [2 * value for value in self.image_std]
        return at_least_float32(self.model.encode_image(normalize(images, mean, std)))

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Features [N, embed_dim], not normalised.

        Raises:
            ZeroshiftError: if a text is longer than the model's context.
        """
        ids = self._stack([self._ids(text) for text in texts])
        return self._encode(ids, torch.empty(len(ids), 0, 0, device=self.device))

    def encode_prompts(self, context: Tensor, suffixes: str | Sequence[str]) -> Tensor:
        """Features [N, embed_dim], not normalised, of: start token, context vectors, suffix tokens, end token.

        Args:
            context: [N, m, width]; the result is differentiable with respect to it.
            suffixes: one text for all rows, or one a row.
        Raises:
            ZeroshiftError: if context and suffix together are longer than the model's context.
        """
        texts = [suffixes] * len(context) if isinstance(suffixes, str) else suffixes
        return self._encode(self._stack([self._prompt_ids(text, context.shape[1]) for text in texts]), context)

    def embed_words(self, text: str) -> Tensor:
        """Token embeddings [num_tokens, width] of a text, without start and end token."""
        ids = self._ids(text)
        length = int((ids != self._pad_id).sum()) - self._num_marks
        return self._embedding(ids[self._num_start : self._num_start + length].to(self.device)).detach()

    def label_feature(self, label: str) -> Tensor:
        """[embed_dim]: mean over the templates of the unit features of the label in them."""
        features = self.encode_text([template.format(label) for template in self.templates])
        return nn.functional.normalize(features, dim=-1).mean(dim=0)

    def warn_unknown(self, label: str) -> None:
        """Warns of words in the label that the model has never seen, if it declares which it has."""
        words = re.findall(r"\w+", label.lower())
        unknown = [
            word for word in dict.fromkeys(words) if self.known_words is not None and word not in self.known_words
        ]
        if unknown:
            near = difflib.get_close_matches(label.lower(), self.known_labels, n=3, cutoff=0)
            hint = f" The labels it knows that are spelt most alike: {', '.join(near)}." if near else ""
            told = f"the word {unknown[0]!r}" if len(unknown) == 1 else f"the words {', '.join(map(repr, unknown))}"
            warnings.warn(f"The encoder has never seen {told}, so the result may mean little.{hint}", stacklevel=2)

    def _tokenize(self, text: str) -> Tensor:
        ids = self._tokenizer([text], context_length=self.context_length + _ROOM)[0]
        if (ids[self.context_length :] != self._pad_id).any():
            raise ZeroshiftError(
                f"The text {_shortened(text)!r} is longer than the encoder's {self.context_length} tokens. Shorten it."
            )
        return ids[: self.context_length]

    def _prompt_ids(self, suffix: str, num_context: int) -> Tensor:
        ids, start = self._ids(suffix), self._num_start
        kept = self.context_length - num_context
        if (ids[kept:] != self._pad_id).any():
            raise ZeroshiftError(
                f"The label {_shortened(suffix)!r} and {num_context} context vectors are longer than the encoder's "
                f"{self.context_length} tokens. Shorten the label or take fewer context vectors."
            )
        return torch.cat([ids[:start], ids.new_full((num_context,), self._placeholder), ids[start:kept]])

    def _stack(self, rows: list[Tensor]) -> Tensor:
        return torch.stack(rows).to(self.device)

    @property
    def _embedding(self) -> nn.Embedding:
        embedding = getattr(self._tower, "token_embedding", None)
        if embedding is None:
            raise ZeroshiftError(
                "This encoder's text tower is not open_clip's own, so prompts cannot be learned in it."
            )
        return embedding

    def _encode(self, ids: Tensor, context: Tensor) -> Tensor:
        """ids [N, context_length], the embeddings after the start token replaced by context [N, m, width]."""
        first, last = self._num_start, self._num_start + context.shape[1]

        def place(embeddings: Tensor) -> Tensor:
            return torch.cat([embeddings[:, :first], context.to(embeddings.dtype), embeddings[:, last:]], dim=1)

        if self._cuts:
            return at_least_float32(self._encode_causal(ids, place if last > first else lambda embeddings: embeddings))
        if last == first:
            return at_least_float32(self.model.encode_text(ids))
        # Any other tower runs as it is, at full length, with a hook that puts the context in its place.
        handle = self._embedding.register_forward_hook(lambda module, inputs, output: place(output))
        try:
            return at_least_float32(self.model.encode_text(ids))
        finally:
            handle.remove()

    @property
    def _pool_type(self) -> str:
        return str(getattr(self._tower, "pool_type", None) or getattr(self._tower, "text_pool_type", "none"))

    @property
    def _cuts(self) -> bool:
        """Whether tokens after the end-of-text token change nothing: causal attention, pooled at that token."""
        causal = getattr(self._tower, "attn_mask", None) is not None and getattr(self._tower, "cls_emb", None) is None
        return causal and self._pool_type in ("argmax", "eos")

    def _encode_causal(self, ids: Tensor, place: Callable[[Tensor], Tensor]) -> Tensor:
        """open_clip's text tower, over the positions up to the last end-of-text token only: same result, less work."""
        tower = self._tower
        eos_id = int(getattr(tower, "eos_id", None) or getattr(tower, "text_eos_id", None) or 0)
        ends = ids.argmax(dim=1) if self._pool_type == "argmax" else torch.eq(ids, eos_id).int().argmax(dim=1)
        length = int(ends.max()) + 1
        ids = ids[:, :length]
        x = place(tower.token_embedding(ids)) + tower.positional_embedding[:length]  # [N, length, width]
        x = tower.ln_final(tower.transformer(x, attn_mask=tower.attn_mask[:length, :length]))
        x = text_global_pool(x, ids, self._pool_type, eos_token_id=eos_id)
        projection = tower.text_projection
        if projection is None:
            return x
        return projection(x) if isinstance(projection, nn.Linear) else x @ projection


def _shortened(text: str, length: int = 40) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
