"""Learned prompts: the latent mapper of IPL, and the base texts that are added to its prompts."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from zeroshift.clip.encoder import Encoder
from zeroshift.core.rng import normal
from zeroshift.generators.stylegan.blocks import EqualLinear, normalize_second_moment

__all__ = ["LatentMapper", "PromptPair", "base_texts"]

_HIDDEN = 512
_LR_MUL = 0.01


class LatentMapper(nn.Module):
    """IPL's F (section 3.2): maps the mapper input of a sample to the context vectors of its prompts.

    PixelNorm, three equalized linear layers to 512 and one to num_context * width, all with lr_mul 0.01 and leaky ReLU
    0.2 times sqrt(2), as in the published program.

    Args:
        mapper_input_dim: width of the mapper input.
        num_context: number of context vectors per sample.
        width: width of the encoder's token embeddings.
        seed: seed of the initial weights.
    """

    def __init__(self, mapper_input_dim: int, num_context: int, width: int, seed: int = 0):
        super().__init__()
        widths = [mapper_input_dim, _HIDDEN, _HIDDEN, _HIDDEN, num_context * width]
        layers = [EqualLinear(*pair, lr_mul=_LR_MUL, activate=True) for pair in pairwise(widths)]
        self.num_context, self.width = num_context, width
        with torch.no_grad():
            for index, layer in enumerate(layers):
                layer.weight.copy_(normal(layer.weight.shape, seed, "mapper", samples=[index])[0] / _LR_MUL)
        self.layers = nn.Sequential(*layers)

    def forward(self, mapper_input: Tensor) -> Tensor:
        """Context vectors [N, num_context, width] for mapper inputs [N, mapper_input_dim]."""
        context: Tensor = self.layers(normalize_second_moment(mapper_input))
        return context.view(-1, self.num_context, self.width)


def base_texts(kind: str, context_init: str, label: str) -> tuple[str | None, str | None]:
    """The base texts that are added to a learned prompt with `label`, in stage 1 and in stage 2; None: no text.

    "published": without the label in stage 2, as in the published program; "label": with the label in both stages;
    "none": no base text, as in the paper's equations.
    """
    with_label = f"{context_init} {label}."
    return {"published": (with_label, context_init), "label": (with_label, with_label), "none": (None, None)}[kind]


class PromptPair:
    """Features of `M_s(w) = [F(w)][source]` and `M_t(w) = [F(w)][target]` (IPL, section 3.2) in one encoder.

    Args:
        encoder: the encoder whose text tower encodes the prompts.
        source, target: the two labels.
        base_source, base_target: base texts whose unnormalized features are added to those of the prompts, or None.
        replaced: see `Encoder.encode_prompts`.
    """

    def __init__(
        self,
        encoder: Encoder,
        source: str,
        target: str,
        base_source: str | None,
        base_target: str | None,
        replaced: str = "",
    ):
        self.encoder, self.source, self.target, self._replaced = encoder, source, target, replaced
        self._base = torch.cat([self._encode_base(base_source), self._encode_base(base_target)])  # [2, E]

    def learned(self, ctx: Tensor) -> tuple[Tensor, Tensor]:
        """Source and target prompt features, [N, E] each, of context vectors [N, m, width]; without base texts."""
        suffixes = [self.source] * len(ctx) + [self.target] * len(ctx)
        source, target = self.encoder.encode_prompts(torch.cat([ctx, ctx]), suffixes, self._replaced).chunk(2)
        return source, target

    def with_base(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """`learned` features plus those of the base texts, not normalized."""
        return source + self._base[0], target + self._base[1]

    def _encode_base(self, text: str | None) -> Tensor:
        if text is None:
            return torch.zeros(1, self.encoder.embed_dim, device=self.encoder.device)
        with torch.no_grad():
            return self.encoder.encode_text([text])
