"""Base class of StyleGAN2 and StyleGAN3: a mapping network, and one w for every layer of the synthesis network."""

from collections.abc import Mapping as MappingType
from typing import Any

import torch
from torch import Tensor

from zeroshift.core.rng import normal
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Codes, Generator, Latents, StyleSpace, truncate
from zeroshift.generators.checkpoints.claims import expected_shapes
from zeroshift.generators.stylegan.blocks import Mapping

__all__ = ["StyleBased"]


class StyleBased(Generator):
    """A generator with a mapping network; its codes are ws [N, num_ws, w_dim]."""

    unused_settings = frozenset({"adapt.lora_rank", "source_images_dir"})

    num_ws: int
    mapping: Mapping
    synthesis: Any

    @classmethod
    def weight_shapes(cls, config: MappingType[str, Any]) -> dict[str, tuple[int, ...]]:
        """As `Generator.weight_shapes`."""
        return expected_shapes(lambda: cls.from_config(config))

    def mapper_input(self, latents: Latents, labels: Tensor | None = None) -> Tensor:
        """w [N, w_dim], not truncated. Raises ZeroshiftError for latents or labels of a wrong shape."""
        if latents.ndim != 2 or latents.shape[1] != self.latent_shape[0]:
            raise ZeroshiftError(f"Latents must be [N, {self.latent_shape[0]}], not {list(latents.shape)}.")
        w: Tensor = self.mapping(latents, labels)
        return w

    def codes(
        self,
        latents: Latents,
        labels: Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Codes:
        """ws [N, num_ws, w_dim]: w for every layer, its first `truncation_cutoff` rows pulled toward w_avg."""
        ws = self.broadcast(self.mapper_input(latents, labels))
        return truncate(ws, self.mapping.w_avg, truncation_psi, truncation_cutoff)

    def broadcast(self, w: Tensor) -> Codes:
        """One w for all layers: [N, w_dim] -> [N, num_ws, w_dim]."""
        return w.unsqueeze(1).expand(-1, self.num_ws, -1)

    def checkpoint_gradients(self) -> None:
        """See `Generator.checkpoint_gradients`. Images and gradients stay the same, at a third more arithmetic."""
        self.synthesis.checkpointing = True

    def average_w(self) -> Tensor:
        """The mean w of 10,000 latents, distributed evenly over any classes: [w_dim]."""
        return self._sampled_ws().mean(dim=0)

    @torch.no_grad()
    def style_space(self) -> StyleSpace:
        """W, measured on 10,000 latents as in the projector of StyleGAN2 (Karras et al., 2020, appendix D)."""
        ws = self._sampled_ws()
        mean = ws.mean(dim=0)
        deviation = (ws - mean).square().sum(dim=1).mean().sqrt().item()
        noise_maps = tuple(name for name, _ in self.named_buffers() if name.endswith("noise_const"))
        return StyleSpace(self.num_ws, ws.shape[1], mean, deviation, noise_maps)

    @torch.no_grad()
    def _sampled_ws(self) -> Tensor:
        """w of 10,000 latents, distributed evenly over any classes: [10000, w_dim]."""
        count = 10_000
        latents = normal((count, *self.latent_shape), "w_avg", samples=[0])[0].to(self.device)
        labels = torch.arange(count, device=self.device) % self.num_classes if self.num_classes else None
        return self.mapper_input(latents, labels)
