"""Files of the Hugging Face Hub: cached ones without the network, and a sentence within seconds without it."""

import logging
import socket
import time
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from zeroshift.errors import ZeroshiftError
from zeroshift.io import hub
from zeroshift.io.hub import from_hub, hub_file, hub_folder

COMMIT = "0123456789" * 4


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """An empty cache, and a network of which any use is recorded."""
    used: list[str] = []

    def unreachable(address: str) -> str:
        used.append(address)
        return "no route"

    def connect(*_: Any, **__: Any) -> None:
        used.append("a connection")
        raise OSError("no route")

    monkeypatch.setattr(hub, "unreachable", unreachable)
    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return used


def put(cache: Path, *names: str) -> None:
    """Files in the layout of the Hub's cache."""
    folder = cache / "hub" / "models--somebody--model"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    for name in names:
        file = folder / "snapshots" / COMMIT / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")


def test_cached_files_are_used_without_the_network(tmp_path: Path, offline: list[str]) -> None:
    put(tmp_path, "config.json", "second.bin", "unet/a.bin")
    assert hub_file("somebody/model", ["first.safetensors", "second.bin"]).name == "second.bin"
    assert hub_file("somebody/model", ["config.json"], COMMIT).read_text() == "{}"
    assert (hub_folder("somebody/model", ("*.safetensors", "*.bin")) / "unet/a.bin").exists()
    assert not offline


def test_without_a_network_a_sentence_comes_at_once_and_nothing_is_logged(
    offline: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    start = time.monotonic()
    for call in (lambda: hub_file("a/b", ["x"]), lambda: hub_folder("a/b", ("*.bin",))):
        with pytest.raises(ZeroshiftError, match=r"https://huggingface\.co/a/b is not in the cache .* \(no route\)"):
            call()
    assert time.monotonic() - start < 2
    assert set(offline) == {constants.ENDPOINT}
    assert capfd.readouterr() == ("", "")


def test_hub_offline_is_respected(monkeypatch: pytest.MonkeyPatch, offline: list[str]) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ZeroshiftError, match=r"\(HF_HUB_OFFLINE is set\)"):
        hub_file("a/b", ["x"])
    assert not offline
    assert constants.HF_HUB_OFFLINE is True


def test_a_repository_without_the_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "unreachable", lambda address: "")

    def missing(*_: Any, **__: Any) -> str:
        raise huggingface_hub.errors.EntryNotFoundError("404")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", missing)
    with pytest.raises(ZeroshiftError, match=r"https://huggingface\.co/a/b has no file x or y"):
        hub_file("a/b", ["x", "y"])


def test_libraries_ask_the_cache_first_and_are_quiet(offline: list[str]) -> None:
    seen = []

    def make() -> str:
        seen.append((constants.HF_HUB_OFFLINE, logging.getLogger("huggingface_hub").level))
        return "made"

    assert from_hub(make, "The tokenizer") == "made"
    assert seen == [(True, logging.CRITICAL)]
    assert not offline
    assert constants.HF_HUB_OFFLINE is False

    def fail() -> str:
        raise OSError("no such file")

    with pytest.raises(ZeroshiftError, match=r"The tokenizer needs files .* \(no route\)"):
        from_hub(fail, "The tokenizer")
    assert offline == [constants.ENDPOINT]
