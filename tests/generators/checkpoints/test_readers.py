"""Files that are no generator: the sentence says what was found."""

import errno
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints import readers
from zeroshift.generators.checkpoints.architectures import architecture_of
from zeroshift.generators.checkpoints.files import load_generator


def refusal(path):
    with pytest.raises(ZeroshiftError) as caught:
        load_generator(path)
    message = str(caught.value)
    assert str(path) in message
    for wrong in ("weights_only", "malicious", "ownload it again"):
        assert wrong not in message
    return message


@pytest.mark.parametrize("name", ["g.pkl", "g.pt", "g.safetensors", "g.bin"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "a pointer of Git LFS"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "a web page"),
        (b"\n\n<html lang=en>", "a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "a compressed archive"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\0", "a picture"),
        (b'{"error": "not found"}   ', "a text file"),
        (b"some text that is long enough", "not a generator file"),
        (b"", "is empty"),
    ],
)
def test_wrong_content(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert words in refusal(tmp_path / name)


def test_other_archives(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    assert "a zip archive, but none of torch.save" in refusal(tmp_path / "a.npz")
    with tarfile.open(tmp_path / "a.pt", "w") as archive:
        archive.add(tmp_path / "a.npz", "a.npz")
    assert "a tar archive" in refusal(tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "b.pt", "w") as archive:
        archive.writestr("model.pkl", pickle.dumps({}))
    assert "has no data.pkl" in refusal(tmp_path / "b.pt")


def test_parts_of_a_model(tmp_path):
    path = tmp_path / "model-00001-of-00003.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    assert "one of 3 parts of a model" in refusal(path)


def test_missing_files(tmp_path):
    (tmp_path / "stylegan2-ffhq.pkl").touch()
    assert "Did you mean stylegan2-ffhq.pkl?" in refusal(tmp_path / "stylegan2-fhq.pkl")
    assert "its folder does not exist" in refusal(tmp_path / "folder" / "g.pkl")
    assert refusal(tmp_path / "other.xyz").endswith("other.xyz.")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_unreadable_files(code, tmp_path, monkeypatch):
    (tmp_path / "g.pkl").write_bytes(b"\x80\x04N.")

    def fails(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(readers, "open", fails, raising=False)
    assert f"cannot be read: {os.strerror(code)}" in refusal(tmp_path / "g.pkl")


def test_the_last_net(tmp_path, monkeypatch):
    def fails(path):
        raise KeyError("some key")

    monkeypatch.setattr(readers, "resolve_name", lambda name: fails)
    (tmp_path / "g.pkl").write_bytes(b"\x80\x04N.")
    assert "cannot be read as a generator: 'some key' (KeyError)" in refusal(tmp_path / "g.pkl")


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 300 + ".pkl", "folder/" * 1000 + "g.pt", "a\0b.pkl", "a\0b"])
def test_names_that_no_file_can_have(name):
    assert architecture_of(name) is None
    with pytest.raises(ZeroshiftError):
        load_generator(name)
