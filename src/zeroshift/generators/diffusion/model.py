"""Unconditional diffusion models of diffusers as generators: of pixels, or of the latents of a VQ or KL decoder."""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zeroshift.config.settings import Sampling
from zeroshift.core.dtypes import at_least_float32
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Codes, Generator, Latents
from zeroshift.generators.diffusion import lora
from zeroshift.generators.diffusion.schedule import NoiseSchedule

__all__ = ["Diffusion", "plain"]

DECODERS = ("VQModel", "AutoencoderKL")


class Diffusion(Generator):
    """A noise-predicting U-Net, sampled by deterministic DDIM.

    The latent is x_T. What the source decides of an image is x_t0, the code; the rest of the way, from t0 to the image,
    differs between source and target: DiffusionCLIP (Kim et al., 2022), section 3.1.

    Args:
        unet: configuration of a diffusers UNet2DModel.
        scheduler: of a DDPMScheduler or DDIMScheduler.
        decoder: of a VQModel or AutoencoderKL, for a latent diffusion model.
        sampling: `Sampling` as a dict.
    Raises:
        ZeroshiftError: if the model is conditional, not square, without three colours, or its schedule no DDIM's.
    """

    architecture = "diffusion"
    mapper_input_dim = None
    num_classes = 0

    unet: Any  # a ModelMixin of diffusers, as is the decoder
    decoder: Any

    def __init__(
        self,
        unet: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        decoder: Mapping[str, Any] | None = None,
        sampling: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.sampling = Sampling(**sampling or {})
        self.schedule = NoiseSchedule(scheduler)
        self.unet = self._build_unet(unet)
        self.decoder = None if decoder is None else _build_decoder(decoder)
        size, channels = self.unet.config.sample_size, self.unet.config.in_channels
        if not isinstance(size, int):
            raise ZeroshiftError(f"The diffusion model makes images of {size} pixels; they must be square.")
        self.latent_shape = (channels, size, size)
        self.resolution = size
        if self.decoder is not None:
            self.resolution = size * 2 ** (len(self.decoder.config.block_out_channels) - 1)
        elif channels != 3:
            raise ZeroshiftError(f"The diffusion model makes images of {channels} channels; it must be 3.")

    def _build_unet(self, config: Mapping[str, Any]) -> Any:
        """The network behind `predict`."""
        from diffusers.models.unets.unet_2d import UNet2DModel

        kind = config.get("_class_name", "UNet2DModel")
        if kind != "UNet2DModel" or config.get("num_class_embeds") or config.get("class_embed_type"):
            raise ZeroshiftError("Only unconditional diffusion models (a UNet2DModel without classes) can be adapted.")
        return UNet2DModel.from_config(config)

    @property
    def config(self) -> dict[str, Any]:  # type: ignore[override]  # follows `sampling`
        """The constructor's arguments."""
        return {
            "unet": plain(self.unet),
            "scheduler": plain(self.schedule.scheduler),
            "decoder": None if self.decoder is None else plain(self.decoder),
            "sampling": asdict(self.sampling),
        }

    def set_sampling(self, sampling: Sampling) -> None:
        """How images are made from now on."""
        self.sampling = sampling

    def codes(
        self,
        latents: Latents,
        labels: Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Codes:
        """x_t0 [N, C, H, W] of x_T. There is no mean to truncate to, so truncation changes nothing; nor are labels."""
        levels = self.schedule.approach(self.sampling.t0, self.sampling.noise_steps)
        return self.carry(latents, levels, self.condition(latents))

    def synthesize(
        self, codes: Codes, *, noise_mode: str = "const", noise_seed: int = 0, samples: Sequence[int] | None = None
    ) -> Tensor:
        """Images of x_t0. There are no noise inputs: DDIM is deterministic."""
        levels = self.schedule.descent(self.sampling.t0, self.sampling.steps)
        return self.decode(self.carry(self.start(codes), levels, self.condition(codes)))

    @property
    def num_training_images(self) -> int:
        """The steps of DDIM, if each of them is trained on; otherwise 1."""
        return self.sampling.steps if self.sampling.train_each_step else 1

    def training_images(
        self, codes: Codes, *, noise_mode: str = "const", noise_seed: int = 0, samples: Sequence[int] | None = None
    ) -> Iterator[Tensor]:
        """The images to train on: the final one, or the one predicted at each step, whose graph is of that step alone.

        The latter is DiffusionCLIP's "GPU-efficient fine-tuning" (Kim et al., 2022, appendix B.2).
        """
        if not self.sampling.train_each_step:
            yield self.synthesize(codes)
            return
        condition, x = self.condition(codes), self.start(codes)
        for here, there in pairwise(self.schedule.descent(self.sampling.t0, self.sampling.steps)):
            x, clean = self.schedule.step(x, self._output(x, here, condition), here, there, self.sampling.clip_sample)
            x = x.detach()
            yield self.decode(clean)

    @torch.no_grad()
    def invert(self, images: Tensor) -> Codes:
        """x_t0 of real images [N, 3, resolution, resolution] in [-1, 1], by deterministic DDIM upwards."""
        levels = self.schedule.descent(self.sampling.t0, self.sampling.invert_steps)[::-1]
        return self.carry(self.encode(images), levels, None)

    def inverted_mapper_input(self, codes: Codes) -> Tensor | None:
        """What the network is told besides x_t0."""
        return self.condition(codes)

    def condition(self, codes: Codes) -> Tensor | None:
        """What the network is told besides x and its level; a diffusion autoencoder's z_sem, here nothing."""
        return None

    def start(self, codes: Codes) -> Tensor:
        """The noisy image or latent [N, C, H, W] that codes hold; here they are it."""
        return codes

    def carry(self, x: Tensor, levels: Sequence[int], condition: Tensor | None) -> Tensor:
        """x [N, C, H, W] carried through noise levels, up or down."""
        for here, there in pairwise(levels):
            output = self._output(x, max(here, there), condition)
            x, _ = self.schedule.step(x, output, here, there, self.sampling.clip_sample)
        return x

    def predict(self, x: Tensor, level: int, condition: Tensor | None) -> Tensor:
        """The network's output for x [N, C, H, W] at a timestep, of the same shape."""
        return self.unet(x, level).sample[:, : x.shape[1]]  # a learned variance, if any, comes after it

    def _output(self, x: Tensor, level: int, condition: Tensor | None) -> Tensor:
        if self.sampling.gradient_checkpointing and torch.is_grad_enabled():
            return at_least_float32(checkpoint(self.predict, x, level, condition, use_reentrant=False))
        return at_least_float32(self.predict(x, level, condition))

    def decode(self, x: Tensor) -> Tensor:
        """Images [N, 3, resolution, resolution] of x without noise."""
        return x if self.decoder is None else self.decoder.decode(x / self.decoder.config.scaling_factor).sample

    def encode(self, images: Tensor) -> Tensor:
        """x without noise [N, C, H, W] of images [N, 3, resolution, resolution]."""
        if self.decoder is None:
            return images
        encoded = self.decoder.encode(images)
        latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        return latents * self.decoder.config.scaling_factor

    def layers(self) -> dict[str, nn.Module]:
        """The U-Net's parts: "unet.conv_in", "unet.down_blocks.0", ..., "unet.conv_out"; or the updates in them."""
        parts: dict[str, nn.Module] = {}
        for name, module in self.unet.named_children():
            inner = module.named_children() if isinstance(module, nn.ModuleList) else [("", module)]
            parts |= {f"{name}.{index}".rstrip("."): part for index, part in inner}
        if low_rank := lora.updates(self.unet):
            parts = {
                name: nn.ModuleList(pair for place, pair in low_rank.items() if f"{place}.".startswith(f"{name}."))
                for name in parts
            }
        return {f"unet.{name}": part for name, part in parts.items() if any(True for _ in part.parameters())}

    def add_lora(self, rank: int, seed: int) -> None:
        """Low-rank updates beside the U-Net's convolutions and attentions become its `layers`."""
        lora.add(self.unet, rank, seed)

    def merged(self) -> "Diffusion":
        """A copy whose weights hold what low-rank updates added; the generator itself if there are none."""
        if not lora.updates(self.unet):
            return self
        merged = copy.deepcopy(self)
        lora.merge(merged.unet)
        return merged

    def deliver(self, folder: Path) -> None:
        """Writes pytorch_lora_weights.safetensors, if there are low-rank updates, and the whole model as pipeline/."""
        if lora.updates(self.unet):
            lora.write(self.unet, folder / lora.LORA_FILE)
        if self.architecture == Diffusion.architecture:
            from zeroshift.generators.checkpoints.diffusers import write_pipeline

            write_pipeline(self.merged(), folder / "pipeline")


def _build_decoder(config: Mapping[str, Any]) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.vq_model import VQModel

    kinds = dict(zip(DECODERS, (VQModel, AutoencoderKL), strict=True))
    if config.get("_class_name") not in kinds:
        raise ZeroshiftError(f"The decoder is a {config.get('_class_name')}; it must be a {' or '.join(kinds)}.")
    return kinds[config["_class_name"]].from_config(config)


def plain(module: Any) -> dict[str, Any]:
    """A module's diffusers configuration as it comes back from JSON, without what it remembers of its origin."""
    kept = {name: value for name, value in module.config.items() if not name.startswith("_")}
    return json.loads(json.dumps({"_class_name": type(module).__name__, **kept}))
