"""The measures of `zeroshift evaluate`, by name. How to add one: docs/extending/measure.md."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

from zeroshift.core.registry import Registry
from zeroshift.errors import ZeroshiftError

if TYPE_CHECKING:
    from torch import Tensor

    from zeroshift.evaluation.metrics.features import Features

__all__ = ["MEASURES", "SIDES", "Measure", "Value", "measure"]

SIDES = ("source", "target", "reference")
Value = tuple[float, float | None]  # and its standard deviation over splits or subsets, if the protocol has any


@dataclass(frozen=True)
class Measure:
    """A protocol and what it needs. Calling a measure calls its protocol.

    Raises:
        ZeroshiftError: if the fields contradict each other.
    """

    protocol: "Callable[[Features], float | Value]"  # its name is recorded with every result
    _: KW_ONLY
    needs: str  # what the network must provide (`FeatureNetwork.provides`)
    network: str  # the default network
    sides: tuple[str, ...]  # images that the protocol reads, of `SIDES`; always includes "target"
    samples: int  # default number of source and target images of the protocol
    better: str  # "higher" or "lower"
    references: int | None = None  # at most this many reference images; None: all
    any_network: bool = False  # whether a generator's held-out evaluator may replace the default network
    check: "Callable[[int, Tensor], str | None] | None" = None
    """(number of samples, reference features [M, ...]) -> why these are too few to be meaningful, or None."""

    def __post_init__(self) -> None:
        if "target" not in self.sides or not set(self.sides) <= set(SIDES):
            raise ZeroshiftError(f"A measure reads 'target' and any of {', '.join(SIDES)}, not {self.sides}.")
        if self.better not in ("higher", "lower"):
            raise ZeroshiftError(f"`better` is 'higher' or 'lower', not {self.better!r}.")
        if self.samples < 1:
            raise ZeroshiftError(f"A measure needs at least 1 sample, not {self.samples}.")
        # Copies the protocol's name and module, by which the registry identifies a definition.
        for attribute in functools.WRAPPER_ASSIGNMENTS:
            if hasattr(self.protocol, attribute):
                object.__setattr__(self, attribute, getattr(self.protocol, attribute))

    def __call__(self, features: "Features") -> Value:
        """The value of the protocol, and its spread or None."""
        value = self.protocol(features)
        return value if isinstance(value, tuple) else (value, None)


MEASURES: Registry[Measure] = Registry(
    "measure",
    "zeroshift.measures",
    {
        name: f"zeroshift.evaluation.metrics.protocols:{name.replace('-', '_').upper()}"
        for name in (
            *("fid", "kid", "is", "sifid", "fd", "kd", "clip-distance", "direction"),
            *("diversity", "intra-diversity", "pairwise-lpips", "intra-lpips", "scs", "id"),
        )
    },
)


def measure(
    name: str,
    *,
    needs: str,
    network: str,
    better: str,
    sides: Sequence[str] = ("target",),
    samples: int = 1000,
    references: int | None = None,
    any_network: bool = False,
    check: "Callable[[int, Tensor], str | None] | None" = None,
) -> "Callable[[Callable[[Features], float | Value]], Measure]":
    """Decorator that turns a protocol, a function of `Features`, into a `Measure` and registers it.

    Args:
        name: name on the command line.
        needs, network, better, sides, samples, references, any_network, check: see `Measure`.
    Raises:
        ZeroshiftError: if the name is taken or the arguments contradict each other.
    """

    def register(protocol: "Callable[[Features], float | Value]") -> Measure:
        made = Measure(
            protocol,
            needs=needs,
            network=network,
            sides=tuple(sides),
            samples=samples,
            better=better,
            references=references,
            any_network=any_network,
            check=check,
        )
        return MEASURES.register(name)(made)

    return register
