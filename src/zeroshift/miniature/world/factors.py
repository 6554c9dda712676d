"""The 32 factors of a person in the miniature world, computed from a latent.

A latent z [N, 32] ~ N(0, I) is first normalized to unit second moment, as in StyleGAN2's mapping network, so that
generator and renderer get the same inputs. The normal CDF then maps each coordinate to a position u in (0, 1);
factor i is coordinate i. A scalar factor is low + (high - low) * u. A class factor divides (0, 1) by the cumulative
shares of its classes. Near a border between two classes they are mixed, so the image is a continuous function of the
latent.
"""

from dataclasses import dataclass

import torch

__all__ = [
    "BORDER",
    "FACTORS",
    "FACTOR_INDEX",
    "NUM_FACTORS",
    "Factor",
    "class_indices",
    "class_weights",
    "positions",
    "values",
]

BORDER = 0.012  # half width, in u, of the zone around a class border where two classes are mixed


@dataclass(frozen=True)
class Factor:
    """A scalar factor, or a class factor.

    Attributes:
        low, high: range of a scalar factor.
        classes: class names of a class factor; empty for a scalar factor.
        shares: probabilities of the classes; they sum to one.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    classes: tuple[str, ...] = ()
    shares: tuple[float, ...] = ()

    @property
    def is_class(self) -> bool:
        return bool(self.classes)


def _named(name: str, **shares: float) -> Factor:
    total = sum(shares.values())
    return Factor(name, classes=tuple(shares), shares=tuple(share / total for share in shares.values()))


# The order is part of the format: it defines the latent space of every shipped generator. Class names appear in the
# captions that the shipped encoders were trained on, so their spelling ("grey") must not change.
# Lengths are in units of half the image width (the image spans [-1, 1] x [-1, 1], y down), angles in radians.
FACTORS: tuple[Factor, ...] = (
    Factor("x_position", -0.08, 0.08),
    Factor("y_position", -0.05, 0.07),
    Factor("scale", 0.90, 1.12),
    Factor("yaw", -0.55, 0.55),
    Factor("tilt", -0.12, 0.12),
    Factor("face_width", 0.84, 1.16),
    Factor("face_height", 0.88, 1.14),
    Factor("jaw", 0.0, 1.0),  # 0 pointed, 1 square
    Factor("skin_tone", 0.0, 1.0),  # 0 fair, 1 dark
    _named("hair_color", black=20, brown=20, ginger=15, blond=20, white=13, blue=12),
    _named("hair_length", cropped=35, medium=30, long=35),
    _named("hair_style", straight=40, wavy=30, curly=30),
    _named("fringe", none=40, full=30, side=30),
    Factor("eye_size", 0.75, 1.30),
    _named("eye_color", brown=40, blue=30, green=30),
    Factor("eye_spacing", 0.82, 1.18),
    Factor("brow_tilt", -0.6, 0.6),  # positive: inner ends low (stern)
    Factor("brow_thickness", 0.5, 1.9),
    Factor("nose_width", 0.6, 1.7),
    Factor("mouth_curve", -1.0, 1.0),  # 1 smiling, -1 frowning
    Factor("mouth_opening", 0.0, 1.0),
    _named("glasses", none=56, round=22, square=22),
    _named("beard", none=58, moustache=20, full=22),
    _named("hat", none=66, beanie=17, brimmed=17),
    _named("earrings", none=65, gold=35),
    _named("clothing_color", red=18, yellow=16, green=17, blue=18, purple=15, white=16),
    _named("clothing_pattern", plain=60, striped=40),
    Factor("shoulder_width", 0.78, 1.2),
    _named("background_color", grey=18, teal=17, sand=17, rose=16, sky=16, olive=16),
    Factor("background_lightness", 0.0, 1.0),
    Factor("light_x", -1.0, 1.0),  # -1: light from the left of the image
    Factor("light_height", 0.0, 1.0),  # 0 from below eye level, 1 from above
)
NUM_FACTORS = len(FACTORS)
FACTOR_INDEX: dict[str, int] = {factor.name: index for index, factor in enumerate(FACTORS)}


def positions(latents: torch.Tensor) -> torch.Tensor:
    """Positions u in (0, 1) of latents, [N, 32] -> [N, 32]: unit second moment, then the normal CDF."""
    unit = latents * (latents.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
    result: torch.Tensor = torch.special.ndtr(unit)
    return result


def class_weights(factor: Factor, u: torch.Tensor) -> torch.Tensor:
    """Mixture weights [N, classes] of a class factor at positions u [N]; one-hot except near class borders."""
    cuts = torch.tensor(factor.shares, dtype=u.dtype, device=u.device).cumsum(0)[:-1]
    passed = ((u[:, None] - cuts) / (2 * BORDER) + 0.5).clamp(0, 1)
    passed = passed * passed * (3 - 2 * passed)  # smoothstep
    ones, zeros = torch.ones_like(u[:, None]), torch.zeros_like(u[:, None])
    return torch.cat([ones, passed], dim=1) - torch.cat([passed, zeros], dim=1)


def values(latents: torch.Tensor) -> dict[str, torch.Tensor]:
    """Factor values by name: [N] for scalars, [N, classes] mixture weights for classes."""
    u = positions(latents)
    return {
        factor.name: class_weights(factor, u[:, i])
        if factor.is_class
        else factor.low + (factor.high - factor.low) * u[:, i]
        for i, factor in enumerate(FACTORS)
    }


def class_indices(latents: torch.Tensor) -> dict[str, torch.Tensor]:
    """The dominant class of each class factor, [N] int64."""
    return {name: weights.argmax(dim=1) for name, weights in values(latents).items() if weights.dim() == 2}
