"""Named extensions: built-in ones, ones registered by decorator, and ones from entry points of other packages."""

import difflib
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from zeroshift.errors import ZeroshiftError

__all__ = ["Registry"]

T = TypeVar("T")
R = TypeVar("R")


class Registry(Mapping[str, T], Generic[T]):
    """Objects by name. An object is imported on first use, so that listing names imports nothing.

    Names come from three places. A name with two meanings is an error, never a silent replacement.

    1. `builtin`: "module:attribute" by name, for what this package ships.
    2. Entry points of installed packages in `group`. In the pyproject.toml of such a package::

           [project.entry-points."zeroshift.methods"]
           mine = "my_package.mine:Mine"

    3. The decorator, in a running program::

           @METHODS.register("mine")
           class Mine(Method): ...

    Args:
        kind: singular noun for error messages, such as "method".
        group: entry-point group, such as "zeroshift.methods".
        builtin: "module:attribute" by name.
    """

    def __init__(self, kind: str, group: str, builtin: Mapping[str, str] | None = None):
        self.kind, self.group = kind, group
        self._builtin = dict(builtin or {})
        self._loaded: dict[str, T] = {}
        self._entry_points: dict[str, EntryPoint] | None = None

    def register(self, name: str) -> Callable[[R], R]:
        """Decorator that adds an object under `name` and returns it unchanged.

        Registering an equal object again is allowed. So is a class or function of the same module and name, because
        reloading a module registers it again.

        Raises:
            ZeroshiftError: if the name is taken by another object.
        """

        def add(item: R) -> R:
            if name in self and not self._same_definition(name, item):
                raise ZeroshiftError(
                    f"There is already a {self.kind} {name!r} ({self._origin(name)}). Choose another name."
                )
            self._loaded[name] = item  # type: ignore[assignment]  # T for every user of the decorator
            return item

        return add

    def __getitem__(self, name: str) -> T:
        """The object of a name.

        Raises:
            ZeroshiftError: if there is no such name (the message lists the closest ones), or if the package that
            provides it cannot be imported.
        """
        if name in self._loaded:
            return self._loaded[name]
        external = self._external()  # first, as it raises if a package redefines a built-in name
        if name in self._builtin:
            module, _, attribute = self._builtin[name].partition(":")
            self._loaded[name] = getattr(import_module(module), attribute)
        elif name in external:
            self._loaded[name] = self._load(external[name])
        else:
            near = difflib.get_close_matches(name, self, n=2)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ZeroshiftError(f"There is no {self.kind} {name!r:.100}.{hint} Available: {', '.join(self)}.")
        return self._loaded[name]

    def get(self, name: str, default: Any = None) -> Any:
        """The object of a name, or `default` if there is no such name."""
        if name not in self:
            return default
        return self[name]

    def __contains__(self, name: object) -> bool:
        return name in self._loaded or name in self._builtin or name in self._external()

    def __iter__(self) -> Iterator[str]:
        """Names, built-in ones first, each in the order of its source."""
        return iter(dict.fromkeys((*self._builtin, *self._external(), *self._loaded)))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _external(self) -> dict[str, EntryPoint]:
        if self._entry_points is None:
            points: dict[str, EntryPoint] = {}
            for point in entry_points(group=self.group):
                other = self._builtin.get(point.name) or getattr(points.get(point.name), "value", point.value)
                if other != point.value:
                    raise ZeroshiftError(
                        f"Two packages define the {self.kind} {point.name!r}: {other} and {point.value}. "
                        "Uninstall one of them."
                    )
                points[point.name] = point
            self._entry_points = points
        return self._entry_points

    def _load(self, point: EntryPoint) -> T:
        try:
            loaded: T = point.load()
        except Exception as error:  # whatever the code of another package raises
            raise ZeroshiftError(
                f"The {self.kind} {point.name!r} cannot be imported from {point.value} ({error}). "
                "Reinstall the package that provides it."
            ) from error
        return loaded

    def _same_definition(self, name: str, item: object) -> bool:
        """Whether `item` is what `name` stands for, or a new version of it from a reloaded module."""
        if name in self._loaded and self._loaded[name] == item:
            return True
        return bool(_definition(item)) and _definition(item) == self._origin(name)

    def _origin(self, name: str) -> str:
        """Where a name comes from, as "module:attribute"; for a registered value that is no definition, its repr."""
        if name in self._loaded:
            return _definition(self._loaded[name]) or repr(self._loaded[name])
        return self._builtin.get(name) or self._external()[name].value


def _definition(item: object) -> str:
    """ "module:name" of a class or function, "" for any other value."""
    name = getattr(item, "__qualname__", "")
    return f"{item.__module__}:{name}" if name else ""
