"""The methods: each says which text direction, and which extra loss, an image pair gets at a step.

A method is one file here that defines `METHOD`, a subclass of `base.Method`; its file name, with
hyphens for underscores, is its name.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zeroshift.methods.base import Method

__all__ = ["METHODS", "method_class"]

_NOT_METHODS = ("base", "context", "image_bank", "configure")
METHODS: tuple[str, ...] = tuple(
    sorted(module.name.replace("_", "-") for module in iter_modules(__path__) if module.name not in _NOT_METHODS)
)


def method_class(name: str) -> "type[Method]":
    """The class of the method `name`, one of `METHODS`."""
    return import_module(f".{name.replace('-', '_')}", __name__).METHOD
