"""Registry entries of the miniature world, connected by the entry points in pyproject.toml.

The module imports quickly: torch and the models are imported only when an entry is loaded.
"""

from typing import TYPE_CHECKING

from zeroshift.generators.checkpoints.catalogue import CatalogueEntry
from zeroshift.methods.presets import IN_RANGE
from zeroshift.methods.registry import Preset
from zeroshift.networks.registry import Network

if TYPE_CHECKING:
    from zeroshift.clip.bridge import Bridge
    from zeroshift.clip.encoder import Encoder
    from zeroshift.networks.base import FeatureNetwork

__all__ = [
    "AUTOENCODER", "AUTOENCODER_PRESET", "DIFFUSION", "DIFFUSION_PRESET", "EVALUATOR", "GENERATOR", "PRESET",
    "load_guidance_bridge", "load_guidance_encoder",
]  # fmt: skip

_RESOLUTION = 64
_LICENCE = "MIT"
_NUM_SAMPLES = 256  # the protocols of published measures use thousands of photos


def _entry(
    name: str, family: str, file: str, preset: str, truth: str, model: str, inversion_encoder: str = ""
) -> CatalogueEntry:
    return CatalogueEntry(
        name,
        family,
        _RESOLUTION,
        _LICENCE,
        package_file=f"zeroshift.miniature:weights/{file}",
        preset=preset,
        encoder="miniature",
        inversion_encoder=inversion_encoder,
        evaluator="miniature-judge",
        num_samples=_NUM_SAMPLES,
        truth=f"zeroshift.miniature.truth_figures:{truth}",
        train_command=f"zeroshift miniature train {model}",
    )


GENERATOR = _entry(
    "miniature", "stylegan2", "generator.safetensors", "miniature", "StyleGANTruth", "generator",
    "zeroshift.miniature.networks.photo_encoder:load_photo_encoder",
)  # fmt: skip
DIFFUSION = _entry(
    "miniature-diffusion", "diffusion", "diffusion", "miniature-diffusion", "DiffusionTruth", "diffusion"
)
AUTOENCODER = _entry(
    "miniature-autoencoder", "diffusion_autoencoder", "autoencoder.safetensors", "miniature-autoencoder",
    "DiffusionTruth", "autoencoder",
)  # fmt: skip


def load_guidance_encoder(resize: str) -> "Encoder":
    """The packaged guidance encoder (`ENCODERS`)."""
    from zeroshift.clip.loading import load_encoder_file
    from zeroshift.miniature.networks.encoders import weights_path

    return load_encoder_file(weights_path("guide"), resize)


def load_guidance_bridge() -> "Bridge":
    """The bridge of the packaged guidance encoder (`BRIDGES`)."""
    from zeroshift.clip.bridge import load_bridge
    from zeroshift.miniature.networks.encoders import weights_path

    return load_bridge(weights_path("bridge"))


def _load_evaluator(file: str) -> "FeatureNetwork":
    from zeroshift.miniature.networks.encoders import load_evaluator
    from zeroshift.networks.clip import ClipNetwork

    return ClipNetwork(load_evaluator(file or None))


EVALUATOR = Network("the miniature world's held-out evaluator", _load_evaluator, for_photographs=False)

# docs/miniature.md explains the choice of these numbers.
PRESET = Preset(
    {
        **IN_RANGE,
        "encoders": ("miniature",),
        "truncation_psi": 1.0,  # the true image belongs to the latent without truncation
        "prompts.steps": 100,
        "prompts.base_text": "none",
        "adapt.steps": 240,
        "adapt.batch_size": 4,
        "adapt.lr": 0.012,
        "adapt.ema_decay": 0.97,
        "adapt.noise_mode": "const",
        "adapt.augmentations": 4,
        "adapt.layer_batch_size": 4,
    },
    {
        # Image-specific directions reach a domain in fewer steps than a fixed one; later steps lose people.
        "ipl": {"adapt.steps": 160},
        "scaffold": {"adapt.steps": 160},
        "compass": {"adapt.steps": 160},
        # With all layers the small generator collapses within 240 steps; that many lose people with any layers.
        "air": {"adapt.steps": 160, "adapt.lr": 0.008, "prompt_steps": 100, "anchor_samples": 200},
        # With all layers the small generator loses the people, with or without consolidation.
        "svl": {"adapt.directional_weight": 0.0, "variation_steps": 500, "relation_weight": 0.1},
        "domain-vector": {"adapt.lr": 0.1, "adapt.layers": ("all",)},
    },
    method="compass",  # the best in docs/benchmark.md
)
"""The embedded StyleGAN2."""

DIFFUSION_PRESET = Preset(
    {
        "encoders": ("miniature",),
        "truncation_psi": 1.0,
        "num_latents": 48,
        "prompts.steps": 100,
        "prompts.base_text": "label",
        "adapt.steps": 100,
        "adapt.batch_size": 2,
        "adapt.lr": 6e-4,
        "adapt.betas": (0.9, 0.999),
        "adapt.ema_decay": 0.97,
        "adapt.layers": ("all",),
        "adapt.noise_mode": "const",
        "adapt.augmentations": 4,
        "sampling.t0": 0.6,
        "sampling.noise_steps": 8,
        "sampling.steps": 4,
        "sampling.invert_steps": 12,
        "sampling.clip_sample": False,
    },
    # In 100 steps, a stronger structure loss keeps people from reaching the domain.
    {"scaffold": {"structure_weight": 6.0}, "compass": {"structure_weight": 6.0}},
    method="nada",  # DiffusionCLIP: docs/benchmark-diffusion.md
)
"""The embedded diffusion model."""

AUTOENCODER_PRESET = Preset(
    {
        **IN_RANGE,
        # Half the evaluations of DDIM for the noise, two thirds for inversion; docs/diffusion.md, "Solvers".
        "sampling.solver": "dpm-solver++",
        "sampling.noise_steps": 2,
        "sampling.invert_steps": 8,
    },
    extends="miniature-diffusion",
    method="compass",  # docs/benchmark-diffusion.md
)
"""The embedded diffusion autoencoder."""
