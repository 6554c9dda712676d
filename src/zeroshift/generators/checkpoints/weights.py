"""Finds the generator in the content of a file, whatever the program that saved it called it.

A generator is recognized by the names of its weights. Programs differ in what they put around them: dictionaries,
whole modules, wrappers for several processes or compilation, a moving average under one name or another.
"""

import pickle
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.torch_data import Content, is_array
from zeroshift.io.pickles import Record, Reference, items_of

__all__ = ["SavedGenerator", "contents", "find_generators"]

_MAX_VALUES = 100_000
_MAX_DEPTH = 40
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}  # DDP, torch.compile, FSDP
_AVERAGE = re.compile(r"(^|[._])(\w*ema|ema\w*|g_running|shadow)[.]", re.IGNORECASE)
_ONLY_COUNTS = re.compile(r"(.*\.)?(num_batches_tracked|n_averaged|step|iteration|cur_nimg)")


@dataclass
class SavedGenerator:
    """One generator of a file."""

    prefix: str
    """The start of the names of its values: "G_ema.", "state_dict.decoder.", or nothing."""
    values: dict[str, Any]
    """Its weights, not read yet, by their names in the generator."""
    buffers: set[str]
    """Names of values that its program did not train."""
    modules: dict[str, dict[str, Any]]
    """Attributes of its modules, if modules and not only weights were saved. The generator itself is ""."""
    around: dict[str, Any] = field(default_factory=dict)
    """Other values of the file, by their full names."""

    @property
    def is_average(self) -> bool:
        """Whether it is the moving average of the weights."""
        return _AVERAGE.search(self.prefix) is not None

    def beside(self, *names: str) -> Any:
        """The first value of one of these names in the generator or in what contains it; None if there is none."""
        parts = self.prefix.split(".")
        for name in names:
            for count in reversed(range(len(parts))):
                value = self.around.get(".".join([*parts[:count], name]))
                if value is not None:
                    return value
        return None

    def weights(self, content: Content) -> dict[str, Tensor]:
        """The numbers of all values that are floating-point arrays.

        Raises:
            ZeroshiftError, pickle.UnpicklingError: as `Content.tensor`.
        """
        weights = {}
        for name, value in self.values.items():
            if is_array(value) and not _ONLY_COUNTS.fullmatch(name):
                tensor = content.tensor(value, f"{self.prefix}{name}")
                if tensor.is_floating_point():
                    weights[name] = tensor
        return weights


def find_generators(content: Content, anchor: str, path: str | Path) -> list[SavedGenerator]:
    """The generators in a file, the best one first: moving averages before others, then the outermost.

    Args:
        anchor: the name of a weight that these generators have.
        path: for messages.

    Raises:
        ZeroshiftError: a file with more values than generators need.
    """
    values, buffers, modules = _flattened(content, path)
    found = []
    for name in values:
        if name == anchor or name.endswith(f".{anchor}"):
            prefix = name.removesuffix(anchor)
            found.append(
                SavedGenerator(prefix, _inside(values, prefix), set(_inside(dict.fromkeys(buffers), prefix)),
                               {"": modules.get(prefix[:-1], {}), **_inside(modules, prefix)}, values)
            )  # fmt: skip
    return sorted(found, key=lambda one: (not one.is_average, one.prefix.count("."), _preference(one.prefix)))


def contents(content: Content) -> str:
    """What is in a file, in words, for messages."""
    items = items_of(content.root)
    if items is None:
        return _kind(content.root)
    named = [f"{key} ({_kind(value)})" for key, value in list(items.items())[:5] if isinstance(key, str)]
    return ", ".join(one[:100] for one in named) or f"a dictionary of {len(items)} entries without names"


def _kind(value: Any) -> str:
    if is_array(value):
        return "a tensor"
    if items_of(value) is not None:
        return "a dictionary"
    if isinstance(value, Record):
        meta = _persistent(value)
        name = str(meta.get("class_name", "")) if meta else value.name
        return f"{_article(name)} {name[:80]}"
    if isinstance(value, Reference):
        return "data outside of the file"
    name = type(value).__name__
    return f"{_article(name)} {name}" if value is not None else "None"


def _article(name: str) -> str:
    return "an" if name[:1].lower() in ("a", "e", "i", "o") else "a"


def _preference(prefix: str) -> int:
    """rosinality's programs save the trained generator as "g", others under longer names."""
    return 0 if prefix.lower() in ("g.", "generator.", "") else 1


def _inside(named: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name[len(prefix) :]: value for name, value in named.items() if name.startswith(prefix) and name != prefix}


def _flattened(content: Content, path: str | Path) -> tuple[dict[str, Any], set[str], dict[str, dict[str, Any]]]:
    """Values by full name ("g_ema.conv1.conv.weight"), names of buffers, and attributes of modules by name."""
    values: dict[str, Any] = {}
    buffers: set[str] = set()
    modules: dict[str, dict[str, Any]] = {}
    pending: deque[tuple[str, Any, int]] = deque([("", content.root, 0)])
    count = 0
    while pending:
        name, value, depth = pending.popleft()
        state = _module_state(value)
        inner = items_of(value)
        if state is not None:
            modules[name] = state
            inner = {key: one for part in _PARTS for key, one in (items_of(state.get(part)) or {}).items()}
            buffers |= {_join(name, key) for key in items_of(state.get("_buffers")) or {} if isinstance(key, str)}
        elif inner is None and isinstance(value, Record) and not is_array(value):
            inner = items_of(value.state)  # an object that holds weights, such as a moving average
        if inner is None:
            values[name] = value
            continue
        count += len(inner)
        if count > _MAX_VALUES or depth > _MAX_DEPTH:
            raise ZeroshiftError(
                f"{path} has more than {_MAX_VALUES:,} values or {_MAX_DEPTH} levels, more than a generator needs."
            )
        pending += [(_join(name, key), one, depth + 1) for key, one in inner.items() if isinstance(key, str)]
    return values, buffers, modules


_PARTS = ("_parameters", "_buffers", "_modules")


def _module_state(value: Any) -> dict[str, Any] | None:
    """The attributes of a saved torch module; None for anything else."""
    if not isinstance(value, Record):
        return None
    meta = _persistent(value)
    state = items_of(value.state if meta is None else meta.get("state"))
    if meta is not None and state is None:
        raise pickle.UnpicklingError("a network without attributes")
    return state if state is not None and all(items_of(state.get(part)) is not None for part in _PARTS) else None


def _persistent(value: Record) -> dict[str, Any] | None:
    """What torch_utils.persistence of NVIDIA's programs saves of a module: source code, class name, attributes."""
    if value.name.endswith("persistence._reconstruct_persistent_obj") and value.args:
        return items_of(value.args[0]) or {}
    return None


def _join(prefix: str, name: str) -> str:
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    return ".".join([prefix, *parts] if prefix else parts)
