import warnings
from pathlib import Path

import pytest

from zeroshift.errors import ZeroshiftError
from zeroshift.io.records import read_records

BROKEN = [
    b"", b"\0" * 64,
    b'{"step": 1\xff}', b"[1]", b"null", b'{"step": ', b"[" * 100_000, b'{"step": ' + b"1" * 9999 + b"}"
]  # fmt: skip


@pytest.mark.parametrize("line", BROKEN)
def test_damaged_lines_are_skipped_counted_and_named(tmp_path: Path, line: bytes) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"step": 0}\n' + line + b'\n{"step": 2}\n')
    with pytest.warns(UserWarning, match=r"metrics\.jsonl has 1 damaged line \(line 2\)"):
        assert [record["step"] for record in read_records(file)] == [0, 2]


def test_a_record_behind_a_block_of_nul_bytes_is_used(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"step": 0}\n\0\0\0\0{"step": 1}\n')
    with pytest.warns(UserWarning, match="1 damaged line"):
        assert [record["step"] for record in read_records(file)] == [0, 1]


def test_records_that_do_not_fit_are_damaged(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"step": 0}\n{"stop": 1}\n{}\n')
    with pytest.warns(UserWarning, match=r"2 damaged lines \(line 2\)"):
        assert read_records(file, lambda record: "step" in record) == [{"step": 0}]


def test_good_files_cause_no_warning(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_records(file) == []
        file.write_bytes(b'{"step": 0}\r\n{"step": 1')
        assert read_records(file) == [{"step": 0}]


def test_a_file_that_cannot_be_read_has_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ZeroshiftError, match="cannot be read"):
        read_records(tmp_path)
