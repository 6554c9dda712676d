"""A naive twin of zeroshift's IPL, which computes the same results with the operations of the published program.

Differences of the published program (Picsart-AI-Research/IPL-Zero-Shot-Generative-Model-Adaptation) from zeroshift:

- learned prompts go through the text tower at full length, one image and one label at a time;
- base texts and the 79 templates of both labels are encoded again at every step;
- CLIP is not frozen: graphs run through both towers, and gradients of its weights are computed;
- the choice of layers computes gradients of all weights of the target generator;
- modulated convolutions build one kernel per sample and run as one grouped convolution; upsampling inserts zeros and
  filters them; the moving average is updated tensor by tensor.

Random numbers, losses, optimizers and the steps that are equal in both (mapping network, latent mapper, preparing
images for CLIP) are zeroshift's own. Supported: one encoder, an unconditional StyleGAN2, no augmentations. A twin
unfreezes the encoder of its `TrainingContext`, so it needs its own context.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.losses import contrastive, directional, domain_regularization, global_similarity, normalize
from zeroshift.generators.base import Codes, Generator
from zeroshift.generators.stylegan.stylegan2 import StyledConv, StyleGAN2ToRGB
from zeroshift.methods.context import TrainingContext
from zeroshift.methods.ipl import IPLOptions, PromptStage, PromptUpdate
from zeroshift.training.adaptation import AdaptUpdate

__all__ = ["NaiveAdaptation", "NaivePrompts", "synthesize"]


# -- the generator --------------------------------------------------------------------------------------------------


def modulated_conv(x: Tensor, weight: Tensor, style: Tensor, *, demodulate: bool, up: Tensor | None) -> Tensor:
    """Karras et al. (2020), equations 1 to 3, as one grouped convolution with one kernel per sample.

    x [N, I, H, W], weight [O, I, k, k], style [N, I] -> [N, O, H, W], or upsampled with the filter `up` [4, 4].
    """
    count, channels, height, width = x.shape
    kernels = weight * style[:, None, :, None, None]  # [N, O, I, k, k]
    if demodulate:
        kernels = kernels * torch.rsqrt(kernels.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8)
    x = x.reshape(1, count * channels, height, width)
    if up is None:
        x = F.conv2d(x, kernels.flatten(0, 1), padding=weight.shape[2] // 2, groups=count)
        return x.view(count, len(weight), height, width)
    x = F.conv_transpose2d(x, kernels.transpose(1, 2).flatten(0, 1), stride=2, groups=count)
    return filtered(x.view(count, len(weight), *x.shape[2:]), up, pad=(1, 1))


def filtered(x: Tensor, kernel: Tensor, *, pad: tuple[int, int], factor: int = 1) -> Tensor:
    """Inserts zeros after every pixel (`factor` 2), pads, and filters each channel."""
    count, channels, height, width = x.shape
    if factor > 1:
        x = F.pad(x.reshape(count, channels, height, 1, width, 1), (0, factor - 1, 0, 0, 0, factor - 1))
        x = x.reshape(count, channels, height * factor, width * factor)
    x = F.pad(x, (*pad, *pad)).flatten(0, 1)[:, None]
    filtered_image: Tensor = F.conv2d(x, kernel[None, None]).unflatten(0, (count, channels)).squeeze(2)
    return filtered_image


def _styled(layer: StyledConv, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
    x = modulated_conv(x, layer.weight, layer.affine(w), demodulate=True, up=layer.filter)
    if noise is not None:
        x = x + layer.noise_strength * noise
    return F.leaky_relu(x + layer.bias[:, None, None], 0.2) * math.sqrt(2)


def _to_rgb(layer: StyleGAN2ToRGB, x: Tensor, w: Tensor) -> Tensor:
    style = layer.affine(w) / math.sqrt(x.shape[1])
    return modulated_conv(x, layer.weight, style, demodulate=False, up=None) + layer.bias[:, None, None]


def synthesize(
    generator: Generator, codes: Codes, *, noise_mode: str, noise_seed: int, samples: Sequence[int] | None = None
) -> Tensor:
    """A StyleGAN2's `synthesize`, with the same noise, by the published program's operations."""
    stylegan: Any = generator
    synthesis, rows = stylegan.synthesis, codes.unbind(dim=1)
    noises = iter(stylegan._noises(noise_mode, noise_seed, range(len(codes)) if samples is None else samples))
    x = _styled(synthesis.b4.conv1, synthesis.input.const.repeat(len(codes), 1, 1, 1), rows[0], next(noises))
    image = _to_rgb(synthesis.b4.torgb, x, rows[1])
    for index, size in enumerate(synthesis.sizes[1:]):
        block = synthesis.get_submodule(f"b{size}")
        x = _styled(block.conv0, x, rows[2 * index + 1], next(noises))
        x = _styled(block.conv1, x, rows[2 * index + 2], next(noises))
        image = filtered(image, synthesis.filter, pad=(2, 1), factor=2) + _to_rgb(block.torgb, x, rows[2 * index + 3])
    return image


# -- the encoder ----------------------------------------------------------------------------------------------------


class NaiveClip:
    """An encoder whose weights are not frozen. It unfreezes the encoder that it wraps."""

    def __init__(self, encoder: Encoder, context_init: str):
        self._encoder, self._context_init = encoder, context_init
        self.model, self.templates, self.logit_scale = encoder.model, encoder.templates, encoder.logit_scale
        self.model.requires_grad_(True)
        self._tokenizer = open_clip.SimpleTokenizer(context_length=encoder.context_length)

    def encode_image(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, E]."""
        return self._encoder.encode_image(images)

    def encode_text(self, texts: list[str]) -> Tensor:
        """[N, E]; the graph is built and discarded."""
        features: Tensor = self.model.encode_text(self._tokens(texts))
        return features.detach()

    def label_feature(self, label: str) -> Tensor:
        """[E]: mean of the label's normalized features over the templates."""
        return normalize(self.encode_text([template.format(label) for template in self.templates])).mean(dim=0)

    def encode_prompts(self, ctx: Tensor, label: str) -> Tensor:
        """[N, E] of context vectors [N, m, width], each replacing the words of the initial context."""
        model, tokens = self.model, self._tokens([f"{self._context_init} {label}"])
        words = model.token_embedding(tokens).detach()  # [1, length, width]
        features = []
        for row in ctx:
            prompt = torch.cat([words[:, :1], row[None], words[:, 1 + len(row) :]], dim=1)
            x = model.transformer(prompt + model.positional_embedding, attn_mask=model.attn_mask)
            features.append(model.ln_final(x)[:, int(tokens.argmax())] @ model.text_projection)
        return torch.cat(features)

    def _tokens(self, texts: list[str]) -> Tensor:
        tokens: Tensor = self._tokenizer(texts)
        return tokens.to(self._encoder.device)


def prompt_settings(context: TrainingContext) -> PromptStage:
    """IPL's settings of the prompt stage."""
    options = context.config.options
    assert isinstance(options, IPLOptions)
    return options.prompts


# -- the two stages -------------------------------------------------------------------------------------------------


class NaivePrompts:
    """Twin of `methods.ipl.PromptLearning` for base_text "published"; trains `mapper`."""

    def __init__(self, context: TrainingContext, mapper: nn.Module):
        self._context, self.mapper = context, mapper
        self._settings = prompt_settings(context)
        self._clip = NaiveClip(context.encoders[0], self._settings.context_init)
        self._optimizer = torch.optim.Adam(mapper.parameters(), lr=self._settings.lr)

    def update(self, latents: Tensor, step: int, samples: Sequence[int]) -> PromptUpdate:
        """One optimizer step on the whole batch of latents [n, z_dim]."""
        images = self.source_images(latents, step, samples)
        features = self.image_features(images)
        learned, labels, base = self.text_features(latents)
        source, target = learned[0] + base[0], learned[1] + base[1]
        contrastive_term = contrastive(features, source, self._clip.logit_scale)
        target_term = domain_regularization(target, labels[1])
        source_term = domain_regularization(source, labels[0])
        domain_term = target_term + self._settings.source_weight * source_term
        loss = contrastive_term + self._settings.domain_weight * domain_term
        self._clip.model.zero_grad()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        terms = {"loss": loss, "contrastive": contrastive_term, "domain": target_term, "source": source_term}
        return PromptUpdate(
            {name: float(value.detach()) for name, value in terms.items()}, [learned[0].detach()], [learned[1].detach()]
        )

    @torch.no_grad()
    def source_images(self, latents: Tensor, step: int, samples: Sequence[int]) -> Tensor:
        """[n, 3, H, W]."""
        source, noise_seed = self._context.source, self._context.noise_seed("prompts", step)
        noise = self._context.config.adapt.noise_mode
        return synthesize(source, source.codes(latents), noise_mode=noise, noise_seed=noise_seed, samples=samples)

    def image_features(self, images: Tensor) -> Tensor:
        """[n, E]; the graph is built and discarded."""
        return self._clip.encode_image(images).detach()

    def text_features(self, latents: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Features for source and target: learned prompts [n, E], labels [E] and base texts [1, E]."""
        config = self._context.config
        ctx = self.mapper(self._context.source.mapper_input(latents))
        both = (config.source, config.target)
        learned = [self._clip.encode_prompts(ctx, label) for label in both]
        base = [self._clip.encode_text([f"{self._settings.context_init} {label}."]) for label in both]
        return learned, [self._clip.label_feature(label) for label in both], base


class NaiveAdaptation:
    """Twin of `adaptation.Adaptation` with IPL and base_text "published"; trains `target`.

    Args:
        mapper: from the prompt stage, not trained here.
        target: the generator at the start of training.
    """

    def __init__(self, context: TrainingContext, mapper: nn.Module, target: Generator):
        self._context, self._mapper, self.target = context, mapper, target
        self._context_init = prompt_settings(context).context_init
        self._clip = NaiveClip(context.encoders[0], self._context_init)
        self.target_ema = copy.deepcopy(context.source).requires_grad_(False)
        settings = context.config.adapt
        self._candidates = context.source.layer_candidates() or []
        self._count = settings.num_layers or 2 * len(self._candidates) // 3
        self._optimizer = torch.optim.Adam(target.parameters(), lr=settings.lr, betas=settings.betas)

    def update(self, latents: Tensor, layer_latents: Tensor, step: int, samples: Sequence[int]) -> AdaptUpdate:
        """One optimizer step on latents [n, z_dim], with layers chosen by layer_latents [k, z_dim]."""
        direction = self.text_directions(latents)
        layers = self.choose_layers(layer_latents, step)
        self.target.requires_grad_(False)
        for layer in layers:
            self.target.get_submodule(layer).requires_grad_(True)
        with torch.no_grad():
            source_images = self.source_images(latents, step, samples)
        target_images = self.target_images(latents, step, samples)
        loss = directional(self.image_features(source_images), self.image_features(target_images), direction)
        self.target.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._average(self._context.config.adapt.ema_decay)
        value = float(loss.detach())
        losses = {"loss": value, "directional": value}
        return AdaptUpdate(losses, layers, source_images, target_images.detach(), [direction])

    def choose_layers(self, latents: Tensor, step: int) -> list[str]:
        """The layers whose codes change most under the global CLIP loss, best first."""
        config, settings = self._context.config, self._context.config.adapt
        self.target.requires_grad_(True)
        codes = self._context.source.codes(latents)
        moved = codes.detach().clone().requires_grad_()
        optimizer = torch.optim.SGD([moved], lr=settings.layer_lr)
        for _ in range(settings.layer_steps):
            noise_seed = self._context.noise_seed("layers", step)
            images = synthesize(self.target, moved, noise_mode=settings.noise_mode, noise_seed=noise_seed)
            label = self._clip.encode_text([config.target])[0]
            loss = global_similarity(self._clip.encode_image(images), label, self._clip.logit_scale)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        change = (moved.detach() - codes).abs().mean(dim=2).mean(dim=0)
        return [self._candidates[index] for index in change.topk(self._count).indices.tolist()]

    @torch.no_grad()
    def text_directions(self, latents: Tensor) -> Tensor:
        """[n, E]."""
        config = self._context.config
        ctx = self._mapper(self._context.source.mapper_input(latents))
        base = self._context_init  # without the label, see base_text "published"
        source, target = (
            normalize(self._clip.encode_prompts(ctx, label) + self._clip.encode_text([base]))
            for label in (config.source, config.target)
        )
        return normalize(target - source)

    def source_images(self, latents: Tensor, step: int, samples: Sequence[int]) -> Tensor:
        """[n, 3, H, W]."""
        return self._synthesize(self._context.source, "source", latents, step, samples)

    def target_images(self, latents: Tensor, step: int, samples: Sequence[int]) -> Tensor:
        """[n, 3, H, W], with graph."""
        return self._synthesize(self.target, "target", latents, step, samples)

    def image_features(self, images: Tensor) -> Tensor:
        """[n, E]."""
        return self._clip.encode_image(images)

    def _synthesize(
        self, generator: Generator, branch: str, latents: Tensor, step: int, samples: Sequence[int]
    ) -> Tensor:
        noise_seed = self._context.noise_seed(branch, step)
        codes = self._context.source.codes(latents)
        return synthesize(
            generator, codes, noise_mode=self._context.config.adapt.noise_mode, noise_seed=noise_seed, samples=samples
        )

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        now = self.target.state_dict()
        for name, value in self.target_ema.state_dict().items():
            value.copy_(value * decay + now[name] * (1 - decay))
