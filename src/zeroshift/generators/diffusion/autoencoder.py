"""Diffusion autoencoders (Preechakul et al., "Diffusion autoencoders", 2022) as generators."""

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Codes, Generator, Latents
from zeroshift.generators.diffusion.autoencoder_network import ConditionalUNet, SemanticEncoder
from zeroshift.generators.diffusion.configs import AutoencoderSettings
from zeroshift.generators.diffusion.model import ADAPTIVE_SETTINGS, Diffusion, plain
from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.generators.diffusion.schedule import NoiseSchedule
from zeroshift.io.foreign import first_line, matches

__all__ = ["DiffusionAutoencoder"]


class DiffusionAutoencoder(Diffusion):
    """A U-Net conditioned on the semantic code z_sem of an image; x_T encodes the remaining detail.

    A latent is one row of standard normal numbers: z_dim of them for z_sem, then x_T. A stored mean and covariance
    factor turn the first into z_sem. Codes are rows too: z_sem, then x_t0. See `Diffusion` for t0.

    Args:
        unet: constructor arguments of `ConditionalUNet`.
        encoder: constructor arguments of `SemanticEncoder`.
        scheduler: configuration of a DDPMScheduler or DDIMScheduler.
        sampling: `DDIMOptions` as a dict.

    Raises:
        ZeroshiftError: if the two networks do not match, their settings describe none that works, or DDIM does not
            support the noise schedule.
    """

    architecture = "diffusion_autoencoder"
    unused_settings = frozenset({"class_index", *ADAPTIVE_SETTINGS})
    exports: ClassVar[Mapping[str, str]] = {
        "onnx": "zeroshift.generators.checkpoints.network_files:write_onnx_denoiser",
        "torch-export": "zeroshift.generators.checkpoints.network_files:write_torch_denoiser",
    }
    deliveries: ClassVar[Mapping[str, str]] = {}

    z_mean: Tensor  # [z_dim]
    z_factor: Tensor  # [z_dim, z_dim], lower triangular, times its transpose the covariance of z_sem

    def __init__(
        self,
        unet: Mapping[str, Any],
        encoder: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        sampling: Mapping[str, Any] | None = None,
    ):
        Generator.__init__(self)  # not Diffusion's: the network is not one of diffusers
        matches(AutoencoderSettings, {"unet": unet, "encoder": encoder}, "The diffusion autoencoder")
        for key in ("resolution", "z_dim"):
            if unet[key] != encoder[key]:
                raise ZeroshiftError(f"U-Net and encoder differ in {key}: {unet[key]} and {encoder[key]}.")
        networks = json.dumps({"unet": dict(unet), "encoder": dict(encoder)})
        _try_out(networks)
        self._networks = json.loads(networks)  # as read from a file
        self.sampling = DDIMOptions.from_saved(sampling)
        self.schedule = NoiseSchedule(scheduler)
        # Convolutions of a CPU are faster in channels_last: by 20 % without a graph, by 5 % in training.
        self.unet = ConditionalUNet(**unet).to(memory_format=torch.channels_last)
        self.encoder = SemanticEncoder(**encoder).to(memory_format=torch.channels_last)
        self.decoder = None
        self.resolution, z_dim = unet["resolution"], unet["z_dim"]
        self.mapper_input_dim = z_dim
        self.latent_shape = (z_dim + 3 * self.resolution**2,)
        self.register_buffer("z_mean", torch.zeros(z_dim))
        self.register_buffer("z_factor", torch.eye(z_dim))

    @property
    def config(self) -> dict[str, Any]:  # type: ignore[override]
        """The constructor's arguments."""
        return {**self._networks, "scheduler": plain(self.schedule.scheduler), "sampling": asdict(self.sampling)}

    @torch.no_grad()
    def fit_statistics(self, z_sem: Tensor) -> None:
        """Sets mean and covariance of z_sem to those of a sample [N, z_dim], N > z_dim."""
        covariance = z_sem.double().T.cov()
        ridge = 1e-6 * covariance.diagonal().mean() * torch.eye(len(covariance), device=z_sem.device)
        self.z_mean.copy_(z_sem.mean(dim=0))
        self.z_factor.copy_(torch.linalg.cholesky(covariance + ridge))

    def mapper_input(self, latents: Latents, labels: Tensor | None = None) -> Tensor:
        """z_sem [N, z_dim]."""
        return self._z_sem(latents, 1.0)

    def codes(
        self,
        latents: Latents,
        labels: Tensor | None = None,
        *,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Codes:
        """z_sem, pulled to its mean by `truncation_psi`, and x_t0: [N, z_dim + 3 * resolution**2]. No labels."""
        z_sem = self._z_sem(latents, truncation_psi)
        levels = self.schedule.approach(self.sampling.t0, self.sampling.noise_steps)
        return torch.cat([z_sem, self.carry(self.start(latents), levels, z_sem).flatten(1)], dim=1)

    @torch.no_grad()
    def invert(self, images: Tensor) -> Codes:
        """z_sem and x_t0 of real images [N, 3, resolution, resolution] in [-1, 1]."""
        z_sem = self.encoder(images)
        levels = self.schedule.descent(self.sampling.t0, self.sampling.invert_steps)[::-1]
        return torch.cat([z_sem, self.carry(images, levels, z_sem).flatten(1)], dim=1)

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Latents:
        """Latents of real images [N, 3, resolution, resolution] in [-1, 1]; their `codes` are those of `invert`."""
        codes = self.invert(images)
        z_sem = self.condition(codes)
        levels = self.schedule.approach(self.sampling.t0, self.sampling.noise_steps)[::-1]
        noise = self.carry(self.start(codes), levels, z_sem)
        numbers = torch.linalg.solve_triangular(self.z_factor, (z_sem - self.z_mean).T, upper=False).T
        return torch.cat([numbers, noise.flatten(1)], dim=1)

    def condition(self, codes: Codes) -> Tensor:
        """z_sem [N, z_dim] of codes."""
        return codes[:, : self.z_mean.numel()]

    def start(self, codes: Codes) -> Tensor:
        """The noisy images [N, 3, resolution, resolution] of codes or latents."""
        return codes[:, self.z_mean.numel() :].reshape(len(codes), 3, self.resolution, self.resolution)

    def predict(self, x: Tensor, level: int, condition: Tensor | None) -> Tensor:
        """The network's output for x [N, 3, resolution, resolution] at a timestep, of the same shape."""
        levels = torch.full((len(x),), level, device=x.device)
        output: Tensor = self.unet(x.contiguous(memory_format=torch.channels_last), levels, condition)
        return output

    def _z_sem(self, latents: Latents, truncation_psi: float) -> Tensor:
        numbers = latents[:, : self.z_mean.numel()]
        return self.z_mean + truncation_psi * numbers @ self.z_factor.T


@functools.lru_cache(maxsize=16)
def _try_out(networks: str) -> None:
    """Encodes and denoises one image on the meta device, without memory or numbers, to see whether sizes fit.

    Raises:
        ZeroshiftError: if they do not.
    """
    config = json.loads(networks)
    try:
        with torch.device("meta"), torch.no_grad():
            images = torch.zeros(1, 3, config["unet"]["resolution"], config["unet"]["resolution"])
            z_sem = SemanticEncoder(**config["encoder"])(images)
            ConditionalUNet(**config["unet"])(images, torch.zeros(1), z_sem)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ZeroshiftError(
            f"The settings of the diffusion autoencoder describe no network that works ({first_line(error)})."
        ) from error
