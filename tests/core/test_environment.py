import json
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from zeroshift.core import environment as module
from zeroshift.core.environment import commit, environment


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_versions_and_device() -> None:
    values = environment("cpu")
    assert values["torch"] == version("torch") == torch.__version__.partition("+")[0] or "+" in values["torch"]
    assert values["device"] == "cpu"
    assert values["zeroshift"] == version("zeroshift")
    assert "device" not in environment()


def test_the_commit_of_a_checkout(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-qm", "One")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit(tmp_path) == head
    git(tmp_path, "pack-refs", "--all")
    assert commit(tmp_path) == head
    git(tmp_path, "checkout", "-q", "--detach")
    assert commit(tmp_path) == head


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (json.dumps({"url": "https://example.org/z.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}), "abc"),
        (json.dumps({"url": "file:///z", "dir_info": {}}), ""),
        ("[]", ""),
        ("{", ""),
        (None, ""),
    ],
)
def test_the_commit_that_pip_installed(
    text: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Installed:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return text

    monkeypatch.setattr(module, "distribution", lambda name: Installed())
    assert commit(tmp_path) == expected
