"""What a run is made with: versions, commit and device."""

import contextlib
import json
import platform
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

__all__ = ["commit", "environment"]

_SOURCE = Path(__file__).parents[3]


def environment(device: str = "") -> dict[str, str]:
    """Versions of zeroshift, its commit, Python, PyTorch and the operating system, and the device of a run.

    Imports nothing large and starts no process. What is unknown is left out.

    Args:
        device: what the run computes on, such as "cpu" or "cuda (NVIDIA H100)".
    """
    values = {
        "zeroshift": _version("zeroshift"),
        "commit": commit(),
        "python": platform.python_version(),
        "torch": _version("torch"),
        "system": f"{platform.system()} {platform.machine()}".strip(),
        "device": device,
    }
    return {name: value for name, value in values.items() if value}


def commit(source: Path = _SOURCE) -> str:
    """The commit of zeroshift's source; empty if it is unknown. Changes that are not committed are not seen.

    It is read from a checkout, or from what pip recorded for a package from a repository (PEP 610).

    Args:
        source: the folder of the checkout.
    """
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return _of_checkout(source / ".git")
    with contextlib.suppress(PackageNotFoundError, ValueError, AttributeError, TypeError):
        direct = json.loads(distribution("zeroshift").read_text("direct_url.json") or "{}")
        return str(direct.get("vcs_info", {}).get("commit_id", ""))
    return ""


def _of_checkout(git: Path) -> str:
    """The commit that HEAD names, directly or through a branch."""
    head = (git / "HEAD").read_text(encoding="utf-8").strip()
    if not head.startswith("ref: "):
        return head
    branch = head.removeprefix("ref: ")
    if (git / branch).exists():
        return (git / branch).read_text(encoding="utf-8").strip()
    for line in (git / "packed-refs").read_text(encoding="utf-8").splitlines():
        if line.endswith(f" {branch}"):
            return line.split()[0]
    return ""


def _version(package: str) -> str:
    with contextlib.suppress(PackageNotFoundError):
        return version(package)
    return ""
