"""Safetensors files: errors that name their cause."""

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from zeroshift.errors import DamagedFileError, ZeroshiftError
from zeroshift.io.tensor_files import open_tensors, read_metadata


def test_metadata_is_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"weight": np.ones(3)}, path, {"name": "value"})
    assert read_metadata(path) == {"name": "value"}
    with open_tensors(path, "numpy") as file:
        assert file.get_tensor("weight").tolist() == [1, 1, 1]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFileError, match="not a complete safetensors file"):
        read_metadata(path)


def test_a_file_that_may_not_be_read_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(ZeroshiftError, match=f"There is no file {re.escape(str(path))}"):
        read_metadata(path)
    save_file({"weight": np.ones(3)}, path)

    def refuse(name: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(name))

    monkeypatch.setattr("builtins.open", refuse)  # permissions do not bind root
    with pytest.raises(ZeroshiftError, match=f"No permission to .* {re.escape(str(path))}"):
        read_metadata(path)
