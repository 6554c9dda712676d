"""Sampling settings of diffusion generators."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from zeroshift.config.schema import build, check_types, require
from zeroshift.config.settings import GeneratorOptions

__all__ = ["DDIMOptions"]

# Names in files of version 0.1.
_RENAMED = {
    "clip": "clip_sample",
    "each_step": "train_each_step",
    "checkpointing": "gradient_checkpointing",
}
_MAX_STEPS = 100_000  # more than any model has noise levels


@dataclass(frozen=True)
class DDIMOptions(GeneratorOptions):
    """Deterministic sampling. The defaults are DiffusionCLIP's; `noise_steps` is ours, as all its images are real."""

    t0: float = 0.5
    """Noise level below which source and target differ, as a fraction of all levels; 1 is pure noise."""
    noise_steps: int = 20
    """Source steps from pure noise to t0."""
    steps: int = 6
    """Steps from t0 to the image; training goes through all of them."""
    invert_steps: int = 40
    """Steps from a real image to t0."""
    solver: Literal["ddim", "dpm-solver++"] = "ddim"
    """ddim (as published), or dpm-solver++: of second order, which needs fewer steps, above all for inversion."""
    clip_sample: bool = True
    """Clip the predicted image at each step, if the model's schedule does; inversion is more exact without clipping."""
    train_each_step: bool = False
    """Train on the image predicted at each step, instead of through all steps. This needs the memory of one step."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""

    @classmethod
    def from_saved(cls, values: Mapping[str, Any] | None) -> "DDIMOptions":
        """The settings in a saved generator, including files of version 0.1; None: the defaults.

        Raises:
            ZeroshiftError: naming an unknown setting, or the first one with an invalid value.
        """
        require(values is None or isinstance(values, Mapping), "sampling must be a JSON object.")
        renamed = {_RENAMED.get(name, name): value for name, value in (values or {}).items()}
        options: DDIMOptions = build(cls, renamed, "sampling.")
        check_types(options, "sampling.")
        options.validate()
        return options

    def validate(self) -> None:
        """Checks the values.

        Raises:
            ZeroshiftError: naming the first setting with an invalid value.
        """
        for name in ("noise_steps", "steps", "invert_steps"):
            value = getattr(self, name)
            require(value >= 1, f"sampling.{name} is {value}; it must be at least 1.")
            require(value <= _MAX_STEPS, f"sampling.{name} is {value}; it must be at most {_MAX_STEPS}.")
        require(self.t0 > 0, f"sampling.t0 is {self.t0}; it must be positive.")
        require(self.t0 <= 1, f"sampling.t0 is {self.t0}; it is a fraction of the noise levels, at most 1.")
