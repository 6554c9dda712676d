"""Files from the Hugging Face Hub: from its cache if possible, else downloaded; never a long wait without a network."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from zeroshift.errors import ZeroshiftError
from zeroshift.io.atomic import disk_errors
from zeroshift.io.connection import unreachable
from zeroshift.io.foreign import first_line

__all__ = ["from_hub", "hub_file", "hub_folder", "looks_like_path", "upload_folder"]

_SUFFIXES = (".safetensors", ".pt", ".pth", ".pkl", ".ckpt", ".bin", ".npz", ".pytorch")

T = TypeVar("T")


def looks_like_path(name: str) -> bool:
    """Whether a name means a file, even if that does not exist; such names are never asked for at the Hub."""
    return name.startswith((".", "~", "/")) or name.endswith(_SUFFIXES) or "\\" in name


def hub_file(repository: str, names: Sequence[str], revision: str | None = None) -> Path:
    """The first of `names` that a repository has, in the Hub's cache. A cached file is used without the network.

    Args:
        repository: "OWNER/MODEL".
        names: file names, best one first.
        revision: a commit; None: the newest one at the time of the first download.

    Raises:
        ZeroshiftError: no network, no such repository or file, or a cache that cannot be written.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with _sentences(repository):
        for name in names:
            cached = try_to_load_from_cache(repository, name, revision=revision)
            if isinstance(cached, str):
                return Path(cached)
        with _access() as reason:
            _require_access(repository, reason)
            for name in names:
                try:
                    return Path(hf_hub_download(repository, name, revision=revision))
                except LocalEntryNotFoundError:
                    raise
                except EntryNotFoundError:
                    continue
    raise ZeroshiftError(f"{_address(repository)} has no file {' or '.join(names)}.")


def hub_folder(
    repository: str, weights: Sequence[str], others: Sequence[str] = ("*.json",), revision: str | None = None
) -> Path:
    """A folder with files of a repository, in the Hub's cache. A cached folder is used without the network.

    Args:
        repository: "OWNER/MODEL".
        weights: patterns of files; those of the first pattern that matches any file are taken.
        others: patterns of files to take as well.
        revision: a commit; None: the newest one at the time of the first download.

    Raises:
        ZeroshiftError: no network, no such repository or files, or a cache that cannot be written.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    with _sentences(repository):
        with contextlib.suppress(LocalEntryNotFoundError):
            folder = Path(snapshot_download(repository, revision=revision, local_files_only=True))
            if any(any(folder.rglob(pattern)) for pattern in weights):
                return folder
        with _access() as reason:
            _require_access(repository, reason)
            for pattern in weights:
                folder = Path(snapshot_download(repository, revision=revision, allow_patterns=[*others, pattern]))
                if any(folder.rglob(pattern)):
                    return folder
    raise ZeroshiftError(f"{_address(repository)} has no weights in {' or '.join(weights)}.")


def from_hub(make: Callable[[], T], what: str) -> T:
    """What a library makes of files on the Hub, such as a tokenizer; from the cache if it has them.

    Args:
        what: what is made, as the start of a sentence.

    Raises:
        ZeroshiftError: if the files are not in the cache and cannot be downloaded.
    """
    with contextlib.suppress(Exception), _quiet(offline=True):  # whatever the library raises without a file
        return make()
    with _access() as reason:
        if reason:
            raise ZeroshiftError(
                f"{what} needs files of the Hugging Face Hub that are not in the cache and cannot be downloaded "
                f"({reason}). Check the network."
            )
        return make()


def upload_folder(folder: Path, repository: str, *, private: bool, message: str) -> str:
    """Uploads the files of a folder into a model repository, and creates it if it does not exist; returns its address.

    Args:
        repository: "OWNER/NAME".
        private: whether a new repository is private.
        message: message of the commit.

    Raises:
        ZeroshiftError: no network, no valid login, or no right to write there.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    with _access() as reason:
        if reason:
            raise ZeroshiftError(f"Nothing was uploaded: the Hugging Face Hub cannot be reached ({reason}).")
        try:
            api = HfApi()
            api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
        except (HfHubHTTPError, LocalTokenNotFoundError) as error:
            raise ZeroshiftError(
                f"Nothing was uploaded to {_address(repository)} ({first_line(error)}). Log in with `hf auth login`, "
                "with a token that may write there."
            ) from error
        except Exception as error:  # network errors of many types
            raise ZeroshiftError(
                f"The upload to {_address(repository)} failed ({first_line(error)}). Repeat the command."
            ) from error
    return _address(repository)


@contextlib.contextmanager
def _access() -> Iterator[str]:
    """Yields why the Hub cannot be reached, empty if it can; decided within seconds."""
    from huggingface_hub import constants

    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else unreachable(constants.ENDPOINT)
    with _quiet(offline=bool(reason)):
        yield reason


@contextlib.contextmanager
def _quiet(offline: bool) -> Iterator[None]:
    """In the body, the Hub's libraries log nothing. If `offline`, they only look into the cache."""
    from huggingface_hub import constants

    log, before = logging.getLogger("huggingface_hub"), constants.HF_HUB_OFFLINE
    level = log.level
    log.setLevel(logging.CRITICAL)
    constants.HF_HUB_OFFLINE = offline
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        log.setLevel(level)


def _require_access(repository: str, reason: str) -> None:
    if reason:
        raise ZeroshiftError(
            f"{_address(repository)} is not in the cache and cannot be downloaded ({reason}). Check the network, or "
            "download the files elsewhere and give their path."
        )


@contextlib.contextmanager
def _sentences(repository: str) -> Iterator[None]:
    """Turns errors of the Hub into sentences."""
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        with disk_errors():
            yield
    except ZeroshiftError:
        raise
    except GatedRepoError as error:
        raise ZeroshiftError(
            f"{_address(repository)} gives its files only to users who have accepted its terms. Accept them there, "
            "then log in with `hf auth login`."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ZeroshiftError(f"There is no model {repository!r} at https://huggingface.co. Check the name.") from error
    except RevisionNotFoundError as error:
        raise ZeroshiftError(f"{_address(repository)} no longer has the expected revision.") from error
    except Exception as error:  # network, protocol and disk errors of many types
        raise ZeroshiftError(
            f"{_address(repository)} cannot be downloaded ({first_line(error)}). Check the network, or download the "
            "files elsewhere and give their path."
        ) from error


def _address(repository: str) -> str:
    return f"https://huggingface.co/{repository}"
