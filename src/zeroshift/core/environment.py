"""What a run is made with: versions, commit and device."""

import contextlib
import json
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

__all__ = ["commit", "environment"]

_SOURCE = Path(__file__).parents[3]
_TIMEOUT = 5  # seconds for git


def environment(device: str = "") -> dict[str, str]:
    """Versions of zeroshift, its commit, Python, PyTorch and the operating system, and the device of a run.

    Imports nothing large. What is unknown is left out.

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
    """The commit of zeroshift's source, with "+changes" if files of it are changed; empty if it is unknown.

    A checkout asks git. A package that pip installed from a repository states its commit (PEP 610).

    Args:
        source: the folder of the checkout.
    """
    if (source / ".git").exists():
        return _of_checkout(source)
    with contextlib.suppress(PackageNotFoundError, ValueError, AttributeError, TypeError):
        direct = json.loads(distribution("zeroshift").read_text("direct_url.json") or "{}")
        return str(direct.get("vcs_info", {}).get("commit_id", ""))
    return ""


def _of_checkout(source: Path) -> str:
    found = _git(source, "rev-parse", "HEAD").strip()
    changes = _git(source, "status", "--porcelain", "--untracked-files=no")
    return found + "+changes" if found and changes else found


def _git(source: Path, *arguments: str) -> str:
    """The output of a git command; empty if it fails, or if there is no git."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(source), "--no-optional-locks", *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=True)
        return ended.stdout
    return ""


def _version(package: str) -> str:
    with contextlib.suppress(PackageNotFoundError):
        return version(package)
    return ""
