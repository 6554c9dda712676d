"""Writes StyleGANs as pickles that NVIDIA's programs (stylegan2-ada-pytorch, stylegan3) open.

Such a pickle holds {"G": ..., "D": ..., "G_ema": ..., ...}, where a network is a call of the program's own function
`torch_utils.persistence._reconstruct_persistent_obj` on the source text of its class and its attributes. The text is
ours (`nvidia_source`). There is no discriminator: nn.Identity stands in its place.
"""

import io
import pickle
from pathlib import Path
from typing import Any

from torch import nn

from zeroshift.generators.checkpoints.nvidia_source import nvidia_network
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.generators.stylegan.stylegan3 import StyleGAN3
from zeroshift.io.atomic import atomic_write
from zeroshift.io.outputs import MARK

__all__ = ["write_nvidia_pickle"]

_VERSION = 6  # of torch_utils.persistence in both programs
_PROTOCOL = 4  # the newest that Python 3.7 reads


def write_nvidia_pickle(generator: StyleGAN2 | StyleGAN3, path: str | Path) -> None:
    """Writes a pickle for NVIDIA's programs, atomically. It needs none of them.

    Raises:
        ZeroshiftError: if the file cannot be written.
    """
    network, source = nvidia_network(generator)
    content = {
        "G": network, "D": nn.Identity(), "G_ema": network, "training_set_kwargs": None, "augment_pipe": None,
    }  # fmt: skip
    buffer = io.BytesIO()
    _Writer(buffer, source, type(network).__module__).dump(content)
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getvalue() + MARK.encode())  # readers stop at the end of the pickle


def _reconstruct(meta: dict[str, Any]) -> None:
    """Stands for the function of NVIDIA's programs, which need not be installed."""
    raise NotImplementedError


class _Writer(pickle._Pickler):  # the version in Python: the other one cannot name a function that is not installed
    """Pickles networks of a module as NVIDIA's `persistence` does."""

    def __init__(self, file: io.BytesIO, source: str, module: str):
        super().__init__(file, protocol=_PROTOCOL)
        self._source, self._module = source, module

    def reducer_override(self, value: Any) -> Any:
        if value is _reconstruct:
            return "_reconstruct_persistent_obj"  # by name, see `save_global`
        if isinstance(value, nn.Module) and type(value).__module__ == self._module:
            meta = {
                "type": "class", "version": _VERSION, "module_src": self._source,
                "class_name": type(value).__name__, "state": value.__dict__,
            }  # fmt: skip
            return _reconstruct, (meta,)
        return NotImplemented

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if obj is not _reconstruct:
            super().save_global(obj, name)  # type: ignore[misc]  # typeshed describes the version in C
            return
        self.write(pickle.GLOBAL + b"torch_utils.persistence\n_reconstruct_persistent_obj\n")  # type: ignore[attr-defined]
        self.memoize(obj)  # type: ignore[attr-defined]
