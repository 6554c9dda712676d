"""The command `zeroshift evaluate`: output, files and errors."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.evaluated_runs import make_pictures, make_run
from zeroshift import RunFolder, evaluate
from zeroshift.cli.main import main
from zeroshift.config.settings import AdaptStage
from zeroshift.errors import ZeroshiftError
from zeroshift.evaluation.references import References
from zeroshift.evaluation.results import read_results
from zeroshift.generators.checkpoints.catalogue import find_entry

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tiny_generator: Path, tmp_path: Path) -> RunFolder:
    return make_run(tiny_generator, tmp_path / "run")


@pytest.fixture
def real(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "real")


def run_cli(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    code = main(["evaluate", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, " ".join(captured.err.split())


def test_results_are_printed_and_added_to_the_report(
    run: RunFolder, real: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = [f"fd:open_clip:{tiny_encoder}", "scs"]
    code, out, _ = run_cli(capsys, run.path, "--metrics", *metrics, "--reference", real, "--num", "12")
    assert code == 0
    assert "fd_all_references" in out
    assert f"Reference images: 14 in {real}" in out
    fd, scs = read_results(run)
    assert f"{scs.value:.4f}" in out
    page = run.report_path.read_text(encoding="utf-8")
    assert f"<b>{scs.value:.4f}</b>" in page
    assert f"14 ({real})" in page
    assert fd.reference == str(real)
    assert run_cli(capsys, run.path, "--metrics", "scs", "--num", "14")[0] == 0
    page = run.report_path.read_text(encoding="utf-8")
    assert page.count("scs ↑") == 2, "the report has all results so far"


def test_several_runs_form_a_table(
    tiny_generator: Path, tiny_encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        make_run(tiny_generator, tmp_path / f"{method}-{seed}", scale, method=method, seed=seed)
        for method, seed, scale in (("nada", 0, 1.1), ("nada", 1, 1.2), ("ipl", 0, 1.3))
    ]
    metrics = ["scs", f"clip-distance:open_clip:{tiny_encoder}"]
    table = tmp_path / "tables" / "all"
    code, out, _ = run_cli(capsys, *(run.path for run in runs), "--metrics", *metrics, "--num", "12", "--out", table)
    assert code == 0
    assert "method=nada" in out
    values = [read_results(run)[1].value for run in runs]
    records = json.loads(table.with_suffix(".json").read_text(encoding="utf-8"))
    assert [len(record["runs"]) for record in records] == [2, 1]
    scs = records[0]["measures"][0]
    assert (scs["measure"], scs["values"]) == ("scs", values[:2])
    assert scs["mean"] == pytest.approx(np.mean(values[:2]))
    assert scs["spread"] == pytest.approx(np.std(values[:2], ddof=1))
    assert records[1]["measures"][0]["spread"] is None
    lines = table.with_suffix(".md").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("| runs | scs ↑ (sobel) | clip-distance ↓ (open_clip:")
    assert lines[2].startswith(f"| method=nada (2) | {np.mean(values[:2]):.4f} ± ")
    assert lines[3].startswith(f"| method=ipl | {values[2]:.4f} |")


def test_a_run_named_twice_is_measured_once(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    again = run.path.parent / "again"
    again.symlink_to(run.path)
    code, out, _ = run_cli(capsys, run.path, f"{run.path}/", again, "--metrics", "scs", "--num", "12")
    assert code == 0
    assert "±" not in out
    assert len(read_results(run)) == len((run.path / "metrics-scs.jsonl").read_text().splitlines()) == 1


def test_a_run_that_is_being_extended_is_listed_with_its_current_generator(
    tiny_generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short, long = AdaptStage(steps=5), AdaptStage(steps=9)
    runs = [make_run(tiny_generator, tmp_path / f"r{seed}", 1 + seed / 9, adapt=short, seed=seed) for seed in (1, 2)]
    RunFolder(runs[1].path, replace(runs[1].config, adapt=long)).write_config()
    code, _, _ = run_cli(
        capsys, *(run.path for run in runs), "--metrics", "scs", "--num", "12", "--out", tmp_path / "table"
    )
    assert code == 0
    (record,) = json.loads((tmp_path / "table.json").read_text())
    assert (record["settings"]["adapt.steps"], record["seeds"]) == (5, [1, 2])


def test_a_run_that_has_diverged_does_not_end_a_comparison(
    tiny_generator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        make_run(tiny_generator, tmp_path / f"r{seed}", scale, seed=seed) for seed, scale in ((0, np.nan), (1, 1.2))
    ]
    code, out, err = run_cli(capsys, *(run.path for run in runs), "--metrics", "scs", "--num", "12")
    assert code == 1
    assert "r0: The generator" in err
    assert "weights that are not finite numbers" in err
    assert "scs" in out
    assert runs[1].report_path.exists()


def test_in_the_miniature_world_reference_images_are_the_true_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(Path("miniature"), tmp_path / "run", scale=1.01, truncation_psi=1.0)
    code, out, _ = run_cli(capsys, run.path, "--num", "10")
    assert code == 0
    assert "Left out: fid, kid, is" in out
    results = {result.measure: result for result in read_results(run)}
    assert (results["fd"].reference, results["fd"].references) == ("truth", 10)
    assert find_entry("miniature").num_samples == 256
    unknown = RunFolder(run.path, replace(run.config, target="disney"))
    assert References.from_truth(unknown.config, 10, 0) is None, "the renderer does not have this domain"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{run}", "--metrics", "fids"], "fids: There is no measure 'fids'. Did you mean fid"),
        (["{run}", "--metrics", "scs:resnet"], "There is no feature network 'resnet'"),
        (
            ["{run}", "--metrics", "kd:sobel", "--reference", "{real}"],
            "needs a network that provides features; sobel provides",
        ),
        (["{run}", "--metrics", "fid"], "fid: Real images of the target domain are needed: --reference FOLDER"),
        (
            ["{run}", "--metrics", "fd:hed:{real}/.notes.txt", "--reference", "{real}"],
            "cannot be read as a weights file",
        ),
        (["{run}", "--metrics", "scs", "--reference", "{run}/nowhere"], "There is no folder"),
        (["{run}", "--metrics", "scs", "--reference", "{run}"], "is a run folder"),
        (["{run}", "--metrics", "scs", "--num", "3"], "too few to measure anything"),
        (["{run}", "--metrics", "scs", "--truncation-psi", "0"], "it must be positive"),
        (["{real}", "--metrics", "scs"], "is not a run folder"),
        ([], "Name at least one run folder"),
    ],
)
def test_bad_input_gives_one_message_and_changes_nothing(
    run: RunFolder, real: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    before = sorted(run.path.rglob("*"))
    filled = [argument.format(run=run.path, real=real) for argument in arguments]
    code, out, err = run_cli(capsys, *filled)
    assert code == 1
    assert err.startswith("Error: ")
    assert sentence in err
    assert "Traceback" not in err
    assert out == ""
    assert sorted(run.path.rglob("*")) == before


def test_unusable_reference_images_and_unfinished_runs_are_refused(
    run: RunFolder, real: Path, tiny_encoder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = f"open_clip:{tiny_encoder}"
    with pytest.raises(ZeroshiftError, match="is too few for this measure"):
        evaluate(run, [f"fd:{looks}"], references=References("one", torch.rand(1, 3, 8, 8)), num=10)
    (real / "0" / "00.png").write_bytes(b"no picture")
    with pytest.raises(ZeroshiftError, match=r"00\.png cannot be read"):
        evaluate(run, [f"fd:{looks}"], references=References.from_folder(real), num=10)
    run.generator_path.unlink()
    code, _, err = run_cli(capsys, run.path)
    assert code == 1
    assert "is not finished" in err
