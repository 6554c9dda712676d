"""Unconditional diffusers models as generators, in pixel space or in the latent space of a VQ or KL decoder."""

import copy
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zeroshift.config.settings import GeneratorOptions
from zeroshift.core.dtypes import at_least_float32
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import LAYER_CHOICE_SETTINGS, Codes, Generator, Latents
from zeroshift.generators.diffusion import lora
from zeroshift.generators.diffusion.configs import MAX_RESOLUTION, decoder_config, unet_config
from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.generators.diffusion.schedule import NoiseSchedule
from zeroshift.generators.diffusion.solvers import SOLVERS
from zeroshift.io.foreign import first_line
from zeroshift.io.owned_folder import require_owned_folder

__all__ = ["PIPELINE_INDEX", "Diffusion", "plain"]

PIPELINE_INDEX = "model_index.json"  # of a diffusers pipeline
# Settings of noise inputs and of the adaptive choice of layers; diffusion models have neither. Their checkpointing is
# sampling.gradient_checkpointing.
ADAPTIVE_SETTINGS = ("adapt.noise_mode", "adapt.gradient_checkpointing", *LAYER_CHOICE_SETTINGS)


class Diffusion(Generator):
    """A noise-predicting U-Net, sampled by deterministic DDIM.

    The latent is x_T. The code is x_t0, computed by the source; source and target differ in the steps from t0 to the
    image (DiffusionCLIP: Kim et al., 2022, section 3.1).

    Args:
        unet: configuration of a diffusers UNet2DModel.
        scheduler: configuration of a DDPMScheduler or DDIMScheduler.
        decoder: configuration of a VQModel or AutoencoderKL, for a latent diffusion model.
        sampling: `DDIMOptions` as a dict.

    Raises:
        ZeroshiftError: if the model is conditional, its images are not square or not RGB, its settings describe no
            network that works, or DDIM does not support its noise schedule.
    """

    architecture = "diffusion"
    Options = DDIMOptions
    preset = "diffusion"
    unused_settings = frozenset({"class_index", "truncation_psi", *ADAPTIVE_SETTINGS})
    exports: ClassVar[Mapping[str, str]] = {"diffusers": "zeroshift.generators.checkpoints.diffusers:write_pipeline"}
    deliveries: ClassVar[Mapping[str, str]] = {"pipeline": "diffusers"}

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
        self.sampling = DDIMOptions.from_saved(sampling)
        self.schedule = NoiseSchedule(scheduler)
        self.latent_shape, self.resolution = _image_sizes(
            json.dumps(unet_config(unet)), None if decoder is None else json.dumps(decoder_config(decoder))
        )
        self.unet = _build_unet(unet)
        self.decoder = None if decoder is None else _build_decoder(decoder)
        steps = self.unet.config.num_train_timesteps  # of a learned embedding of time
        if self.unet.config.time_embedding_type == "learned" and steps < len(self.schedule):
            raise ZeroshiftError(f"The U-Net knows {steps} timesteps, but its noise schedule has {len(self.schedule)}.")

    @property
    def config(self) -> dict[str, Any]:  # type: ignore[override]  # follows `sampling`
        """The constructor's arguments."""
        return {
            "unet": plain(self.unet),
            "scheduler": plain(self.schedule.scheduler),
            "decoder": None if self.decoder is None else plain(self.decoder),
            "sampling": asdict(self.sampling),
        }

    @classmethod
    def network_config(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a `config` that describes the network, without `sampling`."""
        return {name: value for name, value in config.items() if name != "sampling"}

    @property
    def options(self) -> DDIMOptions:
        """The sampling settings in use."""
        return self.sampling

    def configure(self, options: GeneratorOptions) -> None:
        """Sets the sampling settings; a plain GeneratorOptions changes nothing."""
        if isinstance(options, DDIMOptions):
            self.sampling = options
        else:
            super().configure(options)

    def codes(
        self,
        latents: Latents,
        labels: Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Codes:
        """x_t0 [N, C, H, W] of x_T. There is no truncation and there are no labels."""
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
        """The number of DDIM steps with `train_each_step`, otherwise 1."""
        return self.sampling.steps if self.sampling.train_each_step else 1

    def training_images(
        self, codes: Codes, *, noise_mode: str = "const", noise_seed: int = 0, samples: Sequence[int] | None = None
    ) -> Iterator[Tensor]:
        """The final image; with `train_each_step` the image predicted at each step, with the graph of that step only.

        The latter is DiffusionCLIP's "GPU-efficient fine-tuning" (Kim et al., 2022, appendix B.2).
        """
        if not self.sampling.train_each_step:
            yield self.synthesize(codes)
            return
        levels = self.schedule.descent(self.sampling.t0, self.sampling.steps)
        for _, clean in self._steps(self.start(codes), levels, self.condition(codes), detach=True):
            yield self.decode(clean)

    @torch.no_grad()
    def invert(self, images: Tensor) -> Codes:
        """x_t0 of real images [N, 3, resolution, resolution] in [-1, 1]: the sampling steps in reverse."""
        levels = self.schedule.descent(self.sampling.t0, self.sampling.invert_steps)[::-1]
        return self.carry(self.encode(images), levels, None)

    def inverted_mapper_input(self, codes: Codes) -> Tensor | None:
        """The condition of the network; None without one."""
        return self.condition(codes)

    def condition(self, codes: Codes) -> Tensor | None:
        """Network input in addition to x and the timestep: z_sem in a diffusion autoencoder, None here."""
        return None

    def start(self, codes: Codes) -> Tensor:
        """The noisy image or latent [N, C, H, W] in the codes; here the codes themselves."""
        return codes

    def carry(self, x: Tensor, levels: Sequence[int], condition: Tensor | None) -> Tensor:
        """x [N, C, H, W] after steps of the solver through these noise levels, in either direction."""
        return functools.reduce(lambda _, after: after[0], self._steps(x, levels, condition), x)

    def _steps(
        self, x: Tensor, levels: Sequence[int], condition: Tensor | None, *, detach: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """x after each step, and the image predicted in it; `detach`: each step has a graph of its own."""
        solver = SOLVERS[self.sampling.solver](self.schedule, self.sampling.clip_sample)
        for here, there in pairwise(levels):
            output = self._output(x, solver.timestep(here, there), condition)
            x, clean = solver.step(x, output, here, there)
            yield x, clean
            if detach:
                x = x.detach()

    def predict(self, x: Tensor, level: int, condition: Tensor | None) -> Tensor:
        """The network's output for x [N, C, H, W] at a timestep, of the same shape."""
        output: Tensor = self.unet(x, level).sample[:, : x.shape[1]]  # a learned variance, if any, comes after it
        return output

    def _output(self, x: Tensor, level: int, condition: Tensor | None) -> Tensor:
        if self.sampling.gradient_checkpointing and torch.is_grad_enabled():
            return at_least_float32(checkpoint(self.predict, x, level, condition, use_reentrant=False))
        return at_least_float32(self.predict(x, level, condition))

    def decode(self, x: Tensor) -> Tensor:
        """Images [N, 3, resolution, resolution] of x without noise."""
        if self.decoder is None:
            return x
        images: Tensor = self.decoder.decode(x / self.decoder.config.scaling_factor).sample
        return images

    def encode(self, images: Tensor) -> Tensor:
        """x without noise [N, C, H, W] of images [N, 3, resolution, resolution]."""
        if self.decoder is None:
            return images
        scaled: Tensor = _latents(self.decoder.encode(images)) * self.decoder.config.scaling_factor
        return scaled

    def layers(self) -> dict[str, nn.Module]:
        """The U-Net's parts ("unet.conv_in", "unet.down_blocks.0", ..., "unet.conv_out"), or their low-rank updates."""
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
        """Adds low-rank updates to the U-Net's convolutions and attention layers; they become the `layers`."""
        lora.add(self.unet, rank, seed)

    def mixed(self, targets: Sequence[Generator], shares: Sequence[float]) -> "Diffusion":
        """The source with the noise predictions source + Σ share_i (target_i - source) at every DDIM step.

        DiffusionCLIP (Kim et al., 2022), section 3.4: a share below 1 weakens the change; several targets mix their
        domains. The weights are shared with the source and the targets.

        Raises:
            ZeroshiftError: if a target is of another architecture or size, or samples otherwise.
        """
        alike = [one for one in targets if isinstance(one, Diffusion) and one.architecture == self.architecture]
        if len(alike) < len(targets) or any(one.config != self.config for one in alike):
            raise ZeroshiftError(
                "Only diffusion models of the same architecture, size and sampling settings can be mixed."
            )

        def predict(x: Tensor, level: int, condition: Tensor | None) -> Tensor:
            base = mixed = self.predict(x, level, condition)
            for target, share in zip(alike, shares, strict=True):
                mixed = mixed + share * (target.predict(x, level, condition) - base)
            return mixed

        mixture = copy.copy(self)
        mixture.predict = predict  # type: ignore[method-assign]
        return mixture

    def merged(self) -> "Diffusion":
        """A copy with the low-rank updates added to the weights; the generator itself if there are none."""
        if not lora.updates(self.unet):
            return self
        merged = copy.deepcopy(self)
        lora.merge(merged.unet)
        return merged

    def require_delivery(self, folder: Path) -> None:
        """Checks that the pipelines in the folder, if any, are ours."""
        for name in self.deliveries:
            require_owned_folder(folder / name, PIPELINE_INDEX)

    def deliver(self, folder: Path) -> None:
        """Writes `deliveries`, and the low-rank updates, if any, as pytorch_lora_weights.safetensors."""
        if lora.updates(self.unet):
            lora.write(self.unet, folder / lora.LORA_FILE)
        super().deliver(folder)


def _build_unet(config: Mapping[str, Any]) -> Any:
    from diffusers.models.unets.unet_2d import UNet2DModel

    return UNet2DModel(**unet_config(config))


def _build_decoder(config: Mapping[str, Any]) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.autoencoders.vq_model import VQModel

    kinds: dict[str, Any] = {"VQModel": VQModel, "AutoencoderKL": AutoencoderKL}
    arguments = decoder_config(config)
    return kinds[arguments.pop("_class_name")](**arguments)


def _latents(encoded: Any) -> Tensor:
    """The latents in what a decoder's `encode` returns: those of a VQModel, or the most likely ones of a KL decoder."""
    latents: Tensor = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
    return latents


@functools.lru_cache(maxsize=16)
def _image_sizes(unet: str, decoder: str | None) -> tuple[tuple[int, int, int], int]:
    """The shape of latents, and the resolution of images, from configurations as JSON.

    One image is computed on the meta device, without memory or numbers. It shows whether sizes fit each other, which
    diffusers finds out when it runs a network, not when it builds one.
    """
    try:
        with torch.device("meta"), torch.no_grad():
            network = _build_unet(json.loads(unet))
            channels, size = network.config.in_channels, network.config.sample_size
            latents = torch.zeros(1, channels, size, size)
            output = network(latents, 0).sample
            images = encoded = latents
            if decoder is not None:
                autoencoder = _build_decoder(json.loads(decoder))
                images = autoencoder.decode(latents).sample
                encoded = _latents(autoencoder.encode(images))
    except Exception as error:  # diffusers raises many types
        raise ZeroshiftError(
            f"The settings of the diffusion model describe no network that works ({first_line(error)}). Restore its "
            "configuration."
        ) from error
    with_variance = (channels, 2 * channels)
    if output.shape[1] not in with_variance or not encoded.shape[2:] == output.shape[2:] == latents.shape[2:]:
        raise ZeroshiftError(
            f"The U-Net turns {list(latents.shape[1:])} numbers into {list(output.shape[1:])}, and the encoder of its "
            f"decoder returns {list(encoded.shape[1:])}. In an unconditional diffusion model they are the same."
        )
    if images.shape[1] != 3:
        raise ZeroshiftError(f"The diffusion model generates images with {images.shape[1]} channels; it must be 3.")
    if images.shape[-1] > MAX_RESOLUTION:
        raise ZeroshiftError(f"The diffusion model claims images of {images.shape[-1]} pixels, which none generates.")
    return (channels, size, size), images.shape[-1]


def plain(module: Any) -> dict[str, Any]:
    """A module's diffusers configuration as read back from JSON, without private entries."""
    kept = {name: value for name, value in module.config.items() if not name.startswith("_")}
    described: dict[str, Any] = json.loads(json.dumps({"_class_name": type(module).__name__, **kept}))
    return described
