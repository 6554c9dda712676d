"""Known checkpoints: what they are, where their authors keep them, and a download cache."""

import contextlib
import difflib
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from importlib import resources
from pathlib import Path

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from zeroshift.errors import ZeroshiftError
from zeroshift.runs import disk_errors

__all__ = ["EMBEDDED", "Checkpoint", "cache_folder", "download", "known_checkpoints", "resolve"]


@dataclass(frozen=True)
class Checkpoint:
    """A published generator. `size_mb` is None where nobody says it before the download, `address` when embedded."""

    name: str
    architecture: str
    resolution: int
    licence: str
    size_mb: float | None
    address: str | None


# Architecture, and file or folder in miniature/weights.
EMBEDDED = {
    "miniature": ("stylegan2", "generator.safetensors"),
    "miniature-diffusion": ("diffusion", "diffusion"),
    "miniature-autoencoder": ("diffusion_autoencoder", "autoencoder.safetensors"),
}

_ADA = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/"
_SOURCES = f"{_ADA}transfer-learning-source-nets/"
_NGC = "https://api.ngc.nvidia.com/v2/models/nvidia/research/"
_LICENCE = "NVIDIA Source Code License (non-commercial)"

# Names and resolutions as the README and train.py of stylegan2-ada-pytorch have them ...
_STYLEGAN2_ADA = {
    "ffhq": (1024, f"{_ADA}ffhq.pkl"),
    "metfaces": (1024, f"{_ADA}metfaces.pkl"),
    "afhqcat": (512, f"{_ADA}afhqcat.pkl"),
    "afhqdog": (512, f"{_ADA}afhqdog.pkl"),
    "afhqwild": (512, f"{_ADA}afhqwild.pkl"),
    "brecahad": (512, f"{_ADA}brecahad.pkl"),
    "cifar10": (32, f"{_ADA}cifar10.pkl"),
    "ffhq256": (256, f"{_SOURCES}ffhq-res256-mirror-paper256-noaug.pkl"),
    "ffhq512": (512, f"{_SOURCES}ffhq-res512-mirror-stylegan2-noaug.pkl"),
    "ffhq1024": (1024, f"{_SOURCES}ffhq-res1024-mirror-stylegan2-noaug.pkl"),
    "celebahq256": (256, f"{_SOURCES}celebahq-res256-mirror-paper256-kimg100000-ada-target0.5.pkl"),
    "lsundog256": (256, f"{_SOURCES}lsundog-res256-paper256-kimg100000-noaug.pkl"),
}
# ... and as the README of stylegan3 lists them, DATA-RESOLUTIONxRESOLUTION; StyleGAN3 in configurations T and R.
_STYLEGAN3 = ("ffhq-1024", "ffhqu-1024", "ffhqu-256", "metfaces-1024", "metfacesu-1024", "afhqv2-512")
_STYLEGAN2 = (
    *("ffhq-1024", "ffhq-512", "ffhq-256", "ffhqu-1024", "ffhqu-256", "metfaces-1024", "metfacesu-1024"),
    *("afhqv2-512", "afhqcat-512", "afhqdog-512", "afhqwild-512", "brecahad-512", "cifar10-32"),
    *("celebahq-256", "lsundog-256"),
)

# Unconditional diffusion models in diffusers' own form, as their model cards have them.
_HUGGING_FACE = "https://huggingface.co/"
_DDPM = ("celebahq", "ema-celebahq", "church", "ema-church", "bedroom", "ema-bedroom", "cat", "ema-cat")
_DIFFUSION = {**{f"google/ddpm-{data}-256": 256 for data in _DDPM}, "google/ddpm-cifar10-32": 32}
_LATENT_DIFFUSION = {"CompVis/ldm-celebahq-256": 256}
_WEIGHTS = ("*.safetensors", "*.bin")  # the first kind that a model has is fetched

_ATTEMPTS = 5
_CHUNK = 1 << 20
_TIMEOUT = 30  # seconds without a byte


def known_checkpoints() -> list[Checkpoint]:
    """The generators that have a name, the embedded ones first."""
    known = []
    for name, (architecture, _) in EMBEDDED.items():
        path = _embedded(name)
        files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
        if files:  # one that is not trained yet is no checkpoint
            megabytes = round(sum(each.stat().st_size for each in files) / 1e6, 1)
            known.append(Checkpoint(name, architecture, 64, "MIT", megabytes, None))
    for name, (resolution, address) in _STYLEGAN2_ADA.items():
        known.append(Checkpoint(name, "stylegan2", resolution, _LICENCE, None, address))
    lists = {"stylegan2": _STYLEGAN2, "stylegan3-t": _STYLEGAN3, "stylegan3-r": _STYLEGAN3}
    for model, data in [(model, data) for model, names in lists.items() for data in names]:
        family, pixels = model.split("-")[0], data.split("-")[1]
        name = f"{model}-{data}x{pixels}"
        address = f"{_NGC}{family}/versions/1/files/{name}.pkl"
        known.append(Checkpoint(name, family, int(pixels), _LICENCE, None, address))
    for name, resolution in {**_DIFFUSION, **_LATENT_DIFFUSION}.items():
        size = 455 if name in ("google/ddpm-celebahq-256", "google/ddpm-ema-celebahq-256") else None
        known.append(Checkpoint(name, "diffusion", resolution, "Apache 2.0", size, f"{_HUGGING_FACE}{name}"))
    return known


def resolve(name: str) -> Path:
    """The file of a known generator, or the folder of a model of the Hugging Face Hub ("OWNER/MODEL").

    They are downloaded if the cache does not have them.

    Raises:
        ZeroshiftError: an unknown name, no network, a failed download, no room or right to write.
    """
    if "/" in name:
        return _hugging_face(name)
    known = {checkpoint.name: checkpoint for checkpoint in known_checkpoints()}
    if name in EMBEDDED and name not in known:
        model = name.partition("-")[2] or "generator"
        raise ZeroshiftError(f"{name!r} is not trained yet. `zeroshift miniature train {model}` makes it.")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        raise ZeroshiftError(
            f"There is no known generator {name!r}. {hint}`zeroshift models` lists the names; or give a file's path."
        )
    address = known[name].address
    return download(address, cache_folder() / "generators" / f"{name}.pkl") if address else _embedded(name)


def _hugging_face(name: str) -> Path:
    """The folder with a model's settings and weights, in the Hub's own cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        for weights in _WEIGHTS:
            folder = Path(snapshot_download(name, allow_patterns=["*.json", weights]))
            if any(folder.rglob(weights)):
                return folder
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ZeroshiftError(f"There is no file {name}, nor a model of this name at {_HUGGING_FACE}.") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ZeroshiftError(
            f"There is no file {name}, and {_HUGGING_FACE}{name} cannot be had. Check name and network, or fetch the "
            "model's folder elsewhere and give its path."
        ) from error
    raise ZeroshiftError(f"{_HUGGING_FACE}{name} holds no weights in {' or '.join(_WEIGHTS)}.")


def cache_folder() -> Path:
    """$ZEROSHIFT_CACHE, or zeroshift in $XDG_CACHE_HOME, or in ~/.cache."""
    if os.environ.get("ZEROSHIFT_CACHE"):
        return Path(os.environ["ZEROSHIFT_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "zeroshift"


def download(address: str, target: Path) -> Path:
    """Fetches `address` to `target`, unless it is there; processes that want the same file take turns.

    What has arrived lies in target + ".part" until it is whole, and a later call goes on from there.

    Raises:
        ZeroshiftError: no network, an address that does not answer with a file, an interrupted or unwritable file.
    """
    part = target.with_name(f"{target.name}.part")
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f"{target.name}.lock")):
            if not target.exists():
                _fetch_whole(address, part)
                os.replace(part, target)
    return target


def _embedded(name: str) -> Path:
    return Path(str(resources.files("zeroshift") / "miniature" / "weights" / EMBEDDED[name][1]))


def _fetch_whole(address: str, part: Path) -> None:
    """Asks again for what is missing when a connection breaks, up to `_ATTEMPTS` times."""
    with _progress_bar(part.stem) as show:
        for _ in range(_ATTEMPTS):
            if _fetch_rest(address, part, show):
                return
    raise ZeroshiftError(
        f"The download of {address} broke off after {part.stat().st_size / 1e6:.1f} MB. "
        "The same command goes on from there."
    )


def _fetch_rest(address: str, part: Path, show: Callable[[int, int | None], None]) -> bool:
    """Appends to `part` what the server still has, as far as the connection holds; True once `part` is whole."""
    start = part.stat().st_size if part.exists() else 0
    try:
        response = _open(address, start)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # there is nothing from `start` on
            if error.headers.get("Content-Range") == f"bytes */{start}":
                return True
            part.unlink()  # of another file
            return False
        raise ZeroshiftError(f"{address} cannot be had: the server says {error.code} {error.reason}.") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ZeroshiftError(
            f"{address} cannot be reached ({reason}). Check the network, or fetch the file elsewhere and give its path."
        ) from error
    with response:
        if response.headers.get_content_type() == "text/html":
            raise ZeroshiftError(
                f"{address} answers with a web page, not with the file: open it in a browser to see why."
            )
        resumes = response.status == 206
        if resumes and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise ZeroshiftError(f"{address} cannot be had: the server sent another part of it than was asked for.")
        length = response.headers.get("Content-Length")
        with open(part, "ab" if resumes else "wb") as file:
            total = None if length is None else file.tell() + int(length)
            try:
                while chunk := response.read(_CHUNK):
                    file.write(chunk)
                    show(file.tell(), total)
            except (HTTPException, ConnectionError, TimeoutError):
                return False
            file.flush()
            os.fsync(file.fileno())
            return total is None or file.tell() == total


def _open(address: str, start: int) -> HTTPResponse:
    headers = {"User-Agent": "zeroshift", **({"Range": f"bytes={start}-"} if start else {})}
    return urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=_TIMEOUT)


@contextlib.contextmanager
def _progress_bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """Gives a function of (bytes that are there, bytes there will be) that moves a bar on the terminal."""
    left = (TextColumn("{task.description}"), BarColumn())
    with Progress(
        *left, DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(), console=Console(stderr=True)
    ) as progress:
        task = progress.add_task(name, total=None)
        yield lambda there, total: progress.update(task, completed=there, total=total)
