"""Presets with the numbers of published programs, and the default presets, which also keep images in range."""

from zeroshift.methods.registry import Preset

__all__ = ["DIFFUSION", "IN_RANGE", "PUBLISHED", "PUBLISHED_DIFFUSION", "STANDARD"]

IN_RANGE = {"adapt.clamp_images": True, "adapt.range_weight": 5.0}
"""The encoder sees what is saved, images in [-1, 1]. docs/scaffold.md compares ways to reach this."""

PUBLISHED = Preset(
    {
        "encoders": ("ViT-B-32-quickgelu/openai",),
        "adapt.unchosen_gradient": "zero",  # of PyTorch 1.8, which its authors name
        "prompts.keep_surplus": True,
    }
)
"""IPL's program for StyleGAN2 (Guo et al., 2023); its other numbers are the defaults of the settings."""

PUBLISHED_DIFFUSION = Preset(
    {
        "encoders": ("ViT-B-16-quickgelu/openai",),
        "truncation_psi": 1.0,
        "num_latents": 50,
        "adapt.steps": 250,
        "adapt.batch_size": 1,
        "adapt.lr": 2e-6,
        "adapt.lr_final": 8e-6,
        "adapt.betas": (0.9, 0.999),
        "adapt.ema_decay": 0.0,
        "adapt.layers": ("all",),
        "adapt.noise_mode": "const",
        "adapt.directional_weight": 3.0,
        "adapt.directional_form": "log",
        "adapt.l1_weight": 0.3,
        "sampling.clip_sample": False,
    }
)
"""DiffusionCLIP (Kim et al., 2022): five passes over fifty images."""

STANDARD = Preset(
    {
        **IN_RANGE,
        "adapt.unchosen_gradient": "none",
        "adapt.layer_every": 4,  # docs/speed.md: no measure is worse outside its interval
        "prompts.keep_surplus": False,
    },
    extends="published",
)
"""The default for StyleGANs."""

DIFFUSION = Preset(IN_RANGE, extends="published-diffusion")
"""The default for diffusion models."""
