"""Settings of the inversion of photos into a StyleGAN."""

import math
from dataclasses import dataclass
from typing import Literal

from zeroshift.config.schema import require

__all__ = ["DISTANCES", "InversionOptions", "Space"]

Space = Literal["w", "w+"]

DISTANCES = ("auto", "lpips", "pyramid")


@dataclass(frozen=True)
class InversionOptions:
    """How photos are inverted into a StyleGAN. The numbers are those of stylegan2-ada's projector and of PTI."""

    space: Space = "w+"
    """Space of the codes: "w", one style for all layers, or "w+", one for each layer: closer to the photo, but less
    editable."""
    steps: int = 500
    """Optimization steps of the codes; 0 keeps the result of the encoder, or the mean w without one."""
    lr: float = 0.1
    """Learning rate of the codes; it rises over the first 5 % of the steps and falls over the last 25 %."""
    noise_maps: bool = True
    """Optimize the stored noise as well, for generators that have it."""
    tuning_steps: int = 350
    """Greatest number of steps of pivotal tuning (PTI), which adapts the weights to each photo; 0: none."""
    tuning_lr: float = 3e-4
    """Learning rate of pivotal tuning."""
    tuning_stop: float = 0.06
    """LPIPS at which pivotal tuning stops; other distances do not stop it."""
    distance: Literal["auto", "lpips", "pyramid"] = "auto"
    """Distance between photo and reconstruction: "lpips" downloads VGG-16 (528 MB) on first use; "pyramid" compares
    pixels at several scales and needs no download; "auto" is LPIPS if its weights are on this machine."""
    seed: int = 0
    """Seed of the noise that the optimization adds to the codes."""

    def validate(self) -> "InversionOptions":
        """These options.

        Raises:
            ZeroshiftError: naming the first setting with an invalid value.
        """
        require(self.space in ("w", "w+"), f"space is {self.space!r}; choose w or w+.")
        require(self.distance in DISTANCES, f"distance is {self.distance!r}; choose one of {', '.join(DISTANCES)}.")
        for name in ("steps", "tuning_steps", "seed"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; it must be at least 0.")
        for name in ("lr", "tuning_lr"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"{name} is {value}; it must be positive.")
        require(self.tuning_stop >= 0, f"tuning_stop is {self.tuning_stop}; it must be at least 0.")
        return self
