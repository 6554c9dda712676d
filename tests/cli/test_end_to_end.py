"""`zeroshift adapt` from the command line to the report, with tiny random models."""

import dataclasses
import json
import os
import pickle
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from zeroshift.cli.adapt import default_config
from zeroshift.cli.main import main
from zeroshift.generators.checkpoints.files import load_generator, save_generator
from zeroshift.training.run_folder import RunFolder

pytestmark = pytest.mark.slow

SMALL = shlex.split(
    "--source photo --target zombie --device cpu --prompts.steps 4 --prompts.batch-size 4 --steps 6 --batch-size 2 "
    "--adapt.layer-batch-size 2 --preview-every 3 --preview-samples 2 --checkpoint-every 2"
)


@pytest.fixture(scope="module")
def models(tiny_generator: Path, tiny_encoder: Path) -> list[str]:
    return ["--generator", str(tiny_generator), "--encoder", str(tiny_encoder)]


def adapt(models: list[str], out: Path, *arguments: str) -> int:
    return main(["adapt", *models, *SMALL, "--out", str(out), *arguments])


@pytest.fixture(scope="module")
def whole(models: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    torch.set_num_threads(1)
    assert adapt(models, out) == 0
    return out


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "generator.safetensors")


def assert_same_end(run: Path, whole: Path) -> None:
    """Checks that weights and history are identical, bit for bit."""
    expected, actual = weights(whole), weights(run)
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    histories = [
        [{key: value for key, value in record.items() if key != "seconds"} for record in RunFolder.read(one).records()]
        for one in (whole, run)
    ]
    assert histories[0] == histories[1]


def test_a_run_writes_all_documented_files(whole: Path, tiny_generator: Path) -> None:
    names = {path.name for path in whole.iterdir()}
    assert names == {
        "config.json", "metrics.jsonl", "events", "previews", "generator.safetensors", "pairs.png", "report.html",
    }  # fmt: skip
    run = RunFolder.read(whole)
    assert run.config.adapt.steps == 6
    steps = [(record["stage"], record["step"]) for record in run.records()]
    assert steps == [("prompts", step) for step in range(4)] + [("adapt", step) for step in range(6)]
    assert all(record["loss"] == record["loss"] and record["seconds"] > 0 for record in run.records())
    assert all(len(record["layers"]) > 0 for record in run.records() if record["stage"] == "adapt")
    previews = sorted((whole / "previews").glob("[0-9]*.png"))
    assert len(previews) >= 2
    with Image.open(previews[0]) as first, Image.open(previews[-1]) as last:
        assert first.size == last.size == (33, 33), "two samples; source above target"
    assert [path.name.startswith("events.out.tfevents") for path in (whole / "events").iterdir()] == [True]
    before = load_file(tiny_generator)
    moved = [name for name, weight in weights(whole).items() if not torch.allclose(weight, before[name], atol=1e-6)]
    assert moved
    assert all(name.startswith("synthesis.") for name in moved)
    with torch.no_grad():
        generator = load_generator(whole / "generator.safetensors")
        assert generator(generator.sample_latents(0, range(2))).isfinite().all()
    assert "zeroshift adapt" in (whole / "report.html").read_text(encoding="utf-8")


def test_repeating_a_finished_run_changes_nothing(
    models: list[str], whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert adapt(models, whole) == 0
    assert "already finished" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before
    report = (whole / "report.html").read_text(encoding="utf-8")
    (whole / "report.html").unlink()
    assert adapt(models, whole) == 0
    assert (whole / "report.html").read_text(encoding="utf-8") == report


def test_nada_skips_the_first_stage(models: list[str], tmp_path: Path) -> None:
    assert adapt(models, tmp_path / "run", "--method", "nada") == 0
    assert {record["stage"] for record in RunFolder.read(tmp_path / "run").records()} == {"adapt"}


@pytest.mark.parametrize(
    ("stage", "step", "number"),
    [
        ("prompts", 2, signal.SIGINT),
        ("prompts", 3, signal.SIGTERM),
        ("adapt", 0, signal.SIGINT),
        ("adapt", 3, signal.SIGTERM),
    ],
)
def test_interrupted_run_resumes(
    models: list[str],
    whole: Path,
    tmp_path: Path,
    stage: str,
    step: int,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = RunFolder.log

    def interrupted(self: RunFolder, **record: Any) -> None:
        log(self, **record)
        if (record["stage"], record["step"]) == (stage, step):
            signal.raise_signal(number)

    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "log", interrupted)
        assert adapt(models, tmp_path / "run", "--checkpoint-every", "0") == 130
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert "Run the same command again to resume" in " ".join(capsys.readouterr().err.split())
    last = RunFolder.read(tmp_path / "run").records()[-1]
    assert (last["stage"], last["step"]) == (stage, step)
    assert not (tmp_path / "run" / "generator.safetensors").exists()
    assert adapt(models, tmp_path / "run", "--checkpoint-every", "0") == 0
    assert_same_end(tmp_path / "run", whole)


def start(models: list[str], out: Path) -> subprocess.Popen[str]:
    """The command in its own process, after it has trained some steps and written a checkpoint."""
    command = [
        sys.executable,
        "-m",
        "zeroshift",
        "adapt",
        *models,
        *SMALL,
        "--steps",
        "500",
        "--out",
        str(out),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not any(record["stage"] == "adapt" and record["step"] > 5 for record in RunFolder(out, None).records()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return process


def finish(models: list[str], run: Path, steps: int) -> None:
    """Resumes a run of 500 steps after reducing its settings to `steps`, to save time."""
    settings = json.loads((run / "config.json").read_text())
    settings["adapt"]["steps"] = steps
    (run / "config.json").write_text(json.dumps(settings))
    assert adapt(models, run, "--steps", str(steps)) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_stopped_process_resumes(models: list[str], tmp_path: Path, sent: signal.Signals, code: int) -> None:
    process = start(models, tmp_path / "run")
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    if code == 130:
        assert "Run the same command again to resume" in " ".join(err.split())
    done = RunFolder.read(tmp_path / "run").records()[-1]["step"]
    finish(models, tmp_path / "run", done + 4)
    assert adapt(models, tmp_path / "whole", "--steps", str(done + 4)) == 0
    assert_same_end(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("pause", [0.0, 0.05])
def test_three_interrupts_end_without_a_traceback(models: list[str], tmp_path: Path, pause: float) -> None:
    process = start(models, tmp_path / "run")
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(pause)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "Stopped." in err


def test_more_steps_continue_a_finished_run(models: list[str], whole: Path, tmp_path: Path) -> None:
    assert adapt(models, tmp_path / "run", "--steps", "3", "--keep-checkpoints") == 0
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert adapt(models, tmp_path / "run") == 0
    assert not (tmp_path / "run" / "checkpoints").exists(), "this command does not keep them"
    assert_same_end(tmp_path / "run", whole)
    assert (tmp_path / "run" / "report.html").read_text(encoding="utf-8") != report


def test_unknown_words_are_listed_in_a_warning(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adapt(models, tmp_path / "run", "--target", "elv", "--method", "nada") == 0
    err = " ".join(capsys.readouterr().err.split())
    assert "Warning: The encoder was not trained on the word 'elv'" in err
    assert "elf" in err
    assert ".py:" not in err


# Bad input: a message, exit code 1, no files


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.fixture
def bad(tmp_path: Path, tiny_generator: Path, tiny_encoder: Path) -> Path:
    """A folder of invalid files."""
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "empty.pt").write_bytes(b"")
    (folder / "text.pkl").write_text("hello")
    (folder / "short.safetensors").write_bytes(tiny_generator.read_bytes()[:-100])
    (folder / "short-encoder.safetensors").write_bytes(tiny_encoder.read_bytes()[:-100])
    (folder / "evil.pkl").write_bytes(pickle.dumps(_Touch(tmp_path / "touched")))
    torch.save(_Touch(tmp_path / "touched"), folder / "evil.pt")
    return folder


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--generator {bad}/nothing.pt", "There is no generator file"),
        ("--generator {bad}", "is a folder"),
        ("--generator {bad}/empty.pt", "is empty"),
        ("--generator {bad}/text.pkl", "is not a generator file"),
        ("--generator {bad}/short.safetensors", "damaged"),
        ("--generator {bad}/evil.pkl", "evil.pkl"),
        ("--generator {bad}/evil.pt", "no code was executed"),
        ("--generator {encoder}", "was not written by zeroshift"),
        ("--encoder {bad}/nothing.safetensors", "There is no weights file"),
        ("--encoder {bad}/short-encoder.safetensors", "not a complete safetensors file"),
        ("--encoder {generator}", "does not say which model it holds"),
        ("--encoder ViT-B-33/openai", "Did you mean"),
        ("--encoder ViT-B-32/nobody", "There are no weights 'nobody'"),
        ("--target=", "The target label is empty"),
        ("--target PHOTO", "no direction between"),
        ("--target {long}", "longer than the encoder's 24 tokens"),
        ("--method magic", "There is no method 'magic'"),
        ("--adapt.layers synthesis.b99.conv0", "The generator has no layer"),
        ("--adapt.num-layers 99", "adapt.num_layers is 99"),
        ("--steps 0", "adapt.steps is 0"),
        ("--class-index 1", "class"),
        ("--method nada --target-images {bad}/text.pkl", "text.pkl"),
    ],
)
def test_bad_input(
    models: list[str],
    bad: Path,
    tmp_path: Path,
    tiny_generator: Path,
    tiny_encoder: Path,
    arguments: str,
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = "zombie-" * 40
    words = arguments.format(bad=bad, long=long, generator=tiny_generator, encoder=tiny_encoder).split()
    assert adapt(models, tmp_path / "run", *words) == 1
    captured = capsys.readouterr()
    err = " ".join(captured.err.split())
    assert "Error: " in err
    assert sentence in err
    assert "Traceback" not in err
    assert captured.out == ""
    assert not (tmp_path / "touched").exists(), "nothing in a file is executed"
    assert not (tmp_path / "run").exists(), "no incomplete run folder"


def test_a_run_that_cannot_be_extended_is_unchanged(
    models: list[str], whole: Path, tmp_path: Path, tiny_generator: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator, run = tmp_path / "generator.safetensors", tmp_path / "run"
    shutil.copy(tiny_generator, generator)
    words = [str(generator) if word == str(tiny_generator) else word for word in models]
    assert adapt(words, run, "--keep-checkpoints") == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    generator.unlink()
    assert adapt(words, run, "--keep-checkpoints", "--steps", "9") == 1
    assert "There is no generator file" in " ".join(capsys.readouterr().err.split())
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    shutil.copy(tiny_generator, generator)
    assert adapt(words, run, "--keep-checkpoints", "--steps", "9") == 0
    assert RunFolder.read(run).delivered_steps == 9


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("generate {run} --truncation-psi nan", "--truncation-psi is nan"),
        ("generate {run} --truncation-psi -2", "it must be positive"),
        ("generate {run} --seed -1", "--seed is -1"),
        ("evaluate {run} --seed -1", "--seed is -1"),
        ("interpolate {run} --strength 0,nan", "--strength must be numbers"),
        ("generate [/nowhere]", "[/nowhere] is not a run folder"),
        ("export {run} --out /proc/zeroshift/x.safetensors", "/proc/zeroshift"),
        ("interpolate {run} --seeds 1 --fps 2 --seconds 0.5 --out /proc/zeroshift/x.mp4", "/proc/zeroshift"),
    ],
)
def test_invalid_options_for_a_run_are_refused(
    whole: Path, arguments: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(whole.rglob("*"))
    assert main(arguments.format(run=whole).split()) == 1
    captured = capsys.readouterr()
    assert sentence in " ".join(captured.err.split())
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert sorted(whole.rglob("*")) == before


def test_files_of_the_miniature_generator_are_recognized(tmp_path: Path) -> None:
    """A run can then start from another run's result with the same guidance encoder, without a download."""
    path = tmp_path / "mine.safetensors"
    save_generator(load_generator("miniature"), path)
    expected = dataclasses.replace(default_config("miniature"), generator=str(path))
    assert default_config(str(path)) == expected


def test_safetensors_of_any_header_length(tiny_generator: Path, tmp_path: Path) -> None:
    """The file starts with the header length, whose first byte may be that of a pickle (0x80)."""
    generator, path, first = load_generator(tiny_generator), tmp_path / "generator.safetensors", set()
    for more in range(0, 256, 8):
        save_generator(generator, path, {"note": "x" * more})
        first.add(path.read_bytes()[0])
        assert load_generator(path).config == generator.config
    assert 0x80 in first


def test_folders_that_cannot_be_written(models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    for out, sentence in (
        (tmp_path / "letter.txt", "is a file"),
        (tmp_path / "letter.txt" / "run", "a file exists where a folder is needed"),
        (tmp_path, "is not a run folder but holds files (letter.txt)"),
        (Path("/proc/zeroshift"), "/proc/zeroshift"),
    ):
        assert adapt(models, out) == 1
        err = " ".join(capsys.readouterr().err.split())
        assert sentence in err
        assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_other_settings_are_refused_with_the_differences(
    models: list[str], whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adapt(models, whole, "--lr", "0.5", "--seed", "9") == 1
    err = " ".join(capsys.readouterr().err.split())
    assert "adapt.lr" in err
    assert "seed (0 there, 9 now)" in err


def test_full_disk_leaves_a_run_that_resumes(
    models: list[str], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sync, calls = os.fsync, 0

    def full_after_a_while(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 5:
            raise OSError(28, "No space left on device")
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_after_a_while)
        assert adapt(models, tmp_path / "run") == 1
    assert "The disk is full" in " ".join(capsys.readouterr().err.split())
    assert not list((tmp_path / "run").rglob(".zeroshift-*"))
    assert adapt(models, tmp_path / "run") == 0
    assert_same_end(tmp_path / "run", whole)


def test_losses_that_are_not_finite_stop_the_run(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adapt(models, tmp_path / "run", "--lr", "1e30") == 1
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "run" / "generator.safetensors").exists()
