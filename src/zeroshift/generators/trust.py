"""Which factories ("package.module:function") may be imported.

A factory is code. It is never imported because a file asks for it, only if the user has named or trusted it. Trust is
for the code in one place: another package of that name, such as a file in a stranger's folder, is not trusted.
"""

import contextlib
import importlib.util
import re
from pathlib import Path

from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import atomic_write
from zeroshift.io.caches import cache_folder

__all__ = ["is_factory_name", "is_trusted", "remember", "trust"]

_FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_named: set[str] = set()  # factories that were named in this process


def is_factory_name(name: str) -> bool:
    """Whether a string has the form "package.module:function"."""
    return _FACTORY.fullmatch(name) is not None


def trust(factory: str) -> None:
    """Allows files to name a factory, on this machine from now on. The list is trusted-factories.txt in the cache.

    Raises:
        ZeroshiftError: if this is not a factory's name, or the list cannot be written.
    """
    if not is_factory_name(factory):
        raise ZeroshiftError(f"{factory!r} is not the name of a factory. Write package.module:function.")
    _named.add(factory)
    trusted, line = _trusted(), _line(factory)
    if line not in trusted:
        with atomic_write(_trust_file()) as temporary:
            temporary.write_text("".join(f"{one}\n" for one in sorted({*trusted, line})), encoding="utf-8")


def remember(factory: str) -> None:
    """Trusts a factory that the user has named. A cache that cannot be written limits this to the process."""
    with contextlib.suppress(ZeroshiftError, OSError):
        trust(factory)


def is_trusted(factory: str) -> bool:
    """Whether the user has named a factory in this process, or has trusted it and its code is still in that place."""
    return factory in _named or _line(factory) in _trusted()


def _line(factory: str) -> str:
    """A factory with the place of its top-level package, which is found without importing anything."""
    top = factory.partition(":")[0].partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
    place = next((str(Path(one).resolve()) for one in places if one and one != "namespace"), "")
    return f"{factory}\t{place}"


def _trust_file() -> Path:
    return cache_folder() / "trusted-factories.txt"


def _trusted() -> set[str]:
    try:
        return set(_trust_file().read_text(encoding="utf-8", errors="replace").splitlines())
    except OSError:
        return set()
