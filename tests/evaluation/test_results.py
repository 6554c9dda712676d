from dataclasses import asdict
from pathlib import Path

import pytest

from tests.helpers.evaluated_runs import make_run
from zeroshift.evaluation.results import Result, append_result, read_results

RESULT = Result(
    measure="fid", value=1.5, spread=None, better="lower", protocol="fid", network="inception", samples=8, references=8,
    reference="real", seed=0, truncation_psi=0.7, time="2026-01-01T00:00:00Z",
)  # fmt: skip


def test_damaged_lines_are_left_out_with_a_warning(tiny_generator: Path, tmp_path: Path) -> None:
    run = make_run(tiny_generator, tmp_path / "run")
    file = run.path / "metrics-fid.jsonl"
    append_result(run, RESULT)
    good = file.read_bytes()
    lines = [b"", bytes(9), b"\xff", b"{}", b"[]", good[:-2], good.replace(b"1.5", b"[1.5]")[:-1]]
    lines += [good.replace(b'"lower"', b'"sideways"')[:-1], good.replace(b"{", b'{"more": 1, ', 1)[:-1]]
    file.write_bytes(good + b"".join(line + b"\n" for line in lines))
    with pytest.warns(UserWarning, match=r"metrics-fid\.jsonl has 9 damaged lines \(line 2\)"):
        assert [asdict(result) for result in read_results(run)] == [asdict(RESULT)]
