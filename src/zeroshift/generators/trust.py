"""Which factories ("package.module:function") may be imported.

A factory is code, so it is never imported because a file asks for it: only if the user has named or trusted it.
"""

import contextlib
import re
from pathlib import Path

from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import atomic_write
from zeroshift.io.downloads import cache_folder

__all__ = ["is_factory_name", "is_trusted", "remember", "trust"]

_FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_named: set[str] = set()  # factories that were named in this process


def is_factory_name(name: str) -> bool:
    """Whether a text has the form "package.module:function"."""
    return _FACTORY.fullmatch(name) is not None


def trust(factory: str) -> None:
    """Allows files to name a factory, on this machine from now on. The list is trusted-factories.txt in the cache.

    Raises:
        ZeroshiftError: if this is not a factory's name, or the list cannot be written.
    """
    if not is_factory_name(factory):
        raise ZeroshiftError(f"{factory!r} is not the name of a factory. Write package.module:function.")
    _named.add(factory)
    trusted = _trusted()
    if factory not in trusted:
        with atomic_write(_trust_file()) as temporary:
            temporary.write_text("".join(f"{one}\n" for one in sorted({*trusted, factory})), encoding="utf-8")


def remember(factory: str) -> None:
    """Trusts a factory that the user has named. A cache that cannot be written limits this to the process."""
    with contextlib.suppress(ZeroshiftError, OSError):
        trust(factory)


def is_trusted(factory: str) -> bool:
    """Whether the user has named or trusted a factory."""
    return factory in _named or factory in _trusted()


def _trust_file() -> Path:
    return cache_folder() / "trusted-factories.txt"


def _trusted() -> set[str]:
    try:
        return set(_trust_file().read_text(encoding="utf-8").split())
    except OSError:
        return set()
