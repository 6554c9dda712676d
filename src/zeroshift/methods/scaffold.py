"""Scaffold: IPL's image-specific directions, with a loss that keeps the structure of each image (docs/scaffold.md)."""

from dataclasses import dataclass
from typing import ClassVar

from zeroshift.config.settings import MethodOptions
from zeroshift.methods.ipl import IPL, IPLOptions
from zeroshift.methods.structure import Structured, StructureOptions

__all__ = ["Scaffold", "ScaffoldOptions"]


@dataclass(frozen=True)
class ScaffoldOptions(StructureOptions, IPLOptions):
    """Settings of Scaffold."""


class Scaffold(Structured, IPL):
    """Image-specific prompt learning with a structure loss that fades out."""

    Options: ClassVar[type[MethodOptions]] = ScaffoldOptions
