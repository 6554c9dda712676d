import errno
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from zeroshift.config.settings import AdaptConfig, AdaptStage
from zeroshift.core.environment import environment
from zeroshift.errors import ZeroshiftError
from zeroshift.methods.config_file import from_json
from zeroshift.methods.configure import resolve
from zeroshift.training.run_folder import RunFolder

CONFIG = resolve(AdaptConfig(target="zombie"))
HOSTILE = [
    "[" * 100_000, '{"target": "a", "family": 3}', '{"target": "a", "generator": 3, "sampling": {"t0": 1}}',
    '{"target": "a", "generator": ["x"]}', '{"target": "a", "sampling": [1]}', '{"target": "a", "adapt": [1]}',
    '{"target": "a", "adapt": {"lr": [1]}}', '{"target": "a", "adapt": {"lr": 1e999}}',
    '{"target": "a", "adapt": {"lr": 1' + "0" * 400 + "}}", '{"target": "a", "seed": 1' + "0" * 40 + "}",
    '{"target": "a", "prompts": [3]}', '{"target": "a", "prompts": {"lr": {}}}', '{"target": "a", "diffusion": 3}',
    '{"target": "a", "diffusion": {}, "adapt": 3}', '{"target": "a", "diffusion": {}, "seed": []}',
    '{"target": "a\\u0000b"}', '{"target": "\\ud800"}', '{"target": "a", "family": "no such family"}',
    '{"target": "a", "encoders": [["x"]]}', '{"target": "a", "adapt": {"betas": [1]}}', '{"target": "\udcff"}',
    '{"target": "a", "generator": "\\u0000", "sampling": {"t0": 1}}',
]  # fmt: skip


def deliver(run: RunFolder) -> None:
    metadata = {"zeroshift": json.dumps({"steps": str(run.config.adapt.steps)})}
    save_file({"w": torch.zeros(1)}, run.generator_path, metadata=metadata)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_open_makes_then_resumes(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path / "run", CONFIG)
    assert RunFolder.read(run.path).config == CONFIG
    assert from_json((run.path / "config.json").read_text()) == CONFIG
    before = (run.path / "config.json").stat().st_mtime_ns
    RunFolder.open(run.path, CONFIG)
    assert (run.path / "config.json").stat().st_mtime_ns == before


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, CONFIG)
    other = replace(CONFIG, target="elf", adapt=replace(CONFIG.adapt, lr=0.5))
    with pytest.raises(
        ZeroshiftError, match=r"adapt\.lr \(0\.0016 there, 0\.5 now\), target \(zombie there, elf now\)"
    ):
        RunFolder.open(tmp_path, other)
    assert RunFolder.read(tmp_path).config == CONFIG


def test_more_steps_extend_a_run_and_fewer_are_refused(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, CONFIG)
    deliver(run)
    assert run.finished
    longer = replace(CONFIG, adapt=AdaptStage(steps=CONFIG.adapt.steps + 1))
    with pytest.raises(ZeroshiftError, match="keeps one only with --keep-checkpoints"):
        RunFolder.open(tmp_path, longer)
    run.save_checkpoint({})
    extended = RunFolder.open(tmp_path, longer)
    assert not extended.finished
    assert RunFolder.read(tmp_path).finished, "the settings change only when training starts"
    extended.write_config()
    assert RunFolder.read(tmp_path).config == longer
    assert not RunFolder.read(tmp_path).finished
    extended.require_generator()
    assert extended.delivered_steps == CONFIG.adapt.steps, "the old generator, until the new one is written"
    deliver(extended)
    assert extended.finished
    with pytest.raises(ZeroshiftError, match=r"adapt\.steps"):
        RunFolder.open(tmp_path, CONFIG)
    run.generator_path.write_bytes(b"half")
    with pytest.raises(ZeroshiftError, match="damaged"):
        _ = extended.finished


def test_settings_that_change_no_result_may_change(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, CONFIG)
    other = replace(CONFIG, preview_every=7, preview_samples=3, checkpoint_every=9, device="cpu", compile=True)
    other = replace(other, keep_checkpoints=True, log_with=())
    other = replace(other, adapt=replace(CONFIG.adapt, grad_accumulation_steps=2))
    RunFolder.open(tmp_path, other).write_config()
    assert RunFolder.read(tmp_path).config == other
    deliver(run)
    assert RunFolder.open(tmp_path, CONFIG).finished, "there is nothing to do"


def test_a_mistyped_name_is_called_unknown_before_settings_are_compared(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, CONFIG)
    with pytest.raises(ZeroshiftError, match="There is no known generator 'miniatur'"):
        RunFolder.open(tmp_path, replace(CONFIG, generator="miniatur", target="elf"))
    with pytest.raises(ZeroshiftError, match="There is no encoder 'ViT-B-23/openai'"):
        RunFolder.open(tmp_path, replace(CONFIG, encoders=("ViT-B-23/openai",), target="elf"))


def test_what_is_spread_over_all_steps_is_named_when_a_run_is_extended(tmp_path: Path) -> None:
    config = replace(CONFIG, adapt=replace(CONFIG.adapt, lr_final=0.001))
    RunFolder.open(tmp_path, config)
    with pytest.warns(UserWarning, match=r"The learning rate \(adapt.lr to adapt.lr_final\) spread over all steps"):
        RunFolder.open(tmp_path, replace(config, adapt=replace(config.adapt, steps=config.adapt.steps + 1)))


def test_foreign_folders_and_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ZeroshiftError, match=r"not a run folder but holds files \(letter\.txt\)"):
        RunFolder.open(tmp_path, CONFIG)
    with pytest.raises(ZeroshiftError, match="is a file"):
        RunFolder.open(tmp_path / "letter.txt", CONFIG)
    with pytest.raises(ZeroshiftError, match="is not a run folder"):
        RunFolder.read(tmp_path)
    assert files(tmp_path) == ["letter.txt"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_settings_have_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ZeroshiftError, match=r"config\.json"):
        RunFolder.read(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"target": 3}', '{"target": "a", "surprise": 1}', '{"source": "a"}'])
def test_damaged_settings(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ZeroshiftError, match=r"config\.json"):
        RunFolder.open(tmp_path, CONFIG)
    assert (tmp_path / "config.json").read_text() == text


def test_temporary_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    RunFolder.open(tmp_path, CONFIG)
    (tmp_path / "previews").mkdir()
    (tmp_path / "previews" / ".zeroshift-0123abcd-x.png").write_text("half")
    RunFolder.open(tmp_path, CONFIG)
    assert files(tmp_path) == ["config.json"]


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, CONFIG)
    with run.lock():
        (tmp_path / ".zeroshift-0123abcd-x.png").write_text("of the running process")
        with pytest.raises(ZeroshiftError, match="Another process is training"):
            RunFolder.open(tmp_path, CONFIG)
        assert (tmp_path / ".zeroshift-0123abcd-x.png").exists()
    RunFolder.open(tmp_path, CONFIG)
    assert files(tmp_path) == ["config.json"]


@pytest.mark.slow
def test_the_lock_of_a_killed_process_does_not_block(tmp_path: Path) -> None:
    code = "import os, sys; from zeroshift import RunFolder, AdaptConfig; from pathlib import Path\n"
    code += "run = RunFolder.open(Path(sys.argv[1]), AdaptConfig(target='zombie'))\nwith run.lock(): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 9
    assert (tmp_path / ".zeroshift-lock").exists()
    RunFolder.open(tmp_path, AdaptConfig(target="zombie"))
    assert files(tmp_path) == ["config.json"]


def test_a_run_that_failed_before_its_first_step_is_removed(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path / "new", CONFIG)
    run.discard_if_unused()
    assert not run.path.exists()
    run = RunFolder.open(tmp_path / "new", CONFIG)
    run.log("adapt", 0, loss=1.0)
    run.discard_if_unused()
    assert "config.json" in files(run.path)
    (tmp_path / "empty").mkdir()  # the user's own folder stays
    RunFolder.open(tmp_path / "empty", CONFIG).discard_if_unused()
    assert list((tmp_path / "empty").iterdir()) == []


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "events")).Reload()
    return {
        tag: [(event.step, round(event.value, 5)) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_log_and_truncate_log(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, CONFIG)
    for step in range(3):
        run.log("prompts", step, loss=step / 2)
    for step in range(4):
        run.log("adapt", step, loss=-step, layers=["a", "b"])
    run.close()
    assert len(run.records()) == 7
    adapted = [(0, 0), (1, -1), (2, -2), (3, -3)]
    assert scalars(tmp_path) == {"prompts/loss": [(0, 0), (1, 0.5), (2, 1)], "adapt/loss": adapted}

    run = RunFolder.open(tmp_path, CONFIG)
    run.truncate_log("adapt", 2, ("prompts", "adapt"))
    assert run.records()[-1] == {"stage": "adapt", "step": 1, "loss": -1, "layers": ["a", "b"]}
    run.log("adapt", 2, loss=7)
    run.close()
    assert scalars(tmp_path) == {"prompts/loss": [(0, 0), (1, 0.5), (2, 1)], "adapt/loss": [(0, 0), (1, -1), (2, 7)]}

    run.truncate_log("prompts", 1, ("prompts", "adapt"))
    run.close()
    assert run.records() == [{"stage": "prompts", "step": 0, "loss": 0.0}]


def test_settings_are_written_with_versions_and_device(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, CONFIG)
    assert run.made_with == environment()
    run.write_config("cuda (NVIDIA H100)")
    assert run.made_with == environment("cuda (NVIDIA H100)")
    text = (tmp_path / "config.json").read_text()
    RunFolder.open(tmp_path, CONFIG)
    assert (tmp_path / "config.json").read_text() == text, "until another process trains"
    assert RunFolder.read(tmp_path).config == CONFIG


def test_stages_may_have_any_name(tmp_path: Path) -> None:
    run, stages = RunFolder.open(tmp_path, CONFIG), ("warm-up", "prompts", "adapt")
    for stage in stages:
        run.log(stage, 0, loss=1.0)
        run.log(stage, 1, loss=0.5)
    run.truncate_log("prompts", 1, stages)
    run.close()
    assert [(one["stage"], one["step"]) for one in run.records()] == [("warm-up", 0), ("warm-up", 1), ("prompts", 0)]


def test_an_incomplete_line_of_a_killed_process_is_ignored(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, CONFIG)
    run.log("adapt", 0, loss=1.0)
    with open(run.metrics_path, "a") as file:
        file.write('{"stage": "ada')
    assert len(run.records()) == 1
    run.truncate_log("adapt", 1, ("prompts", "adapt"))
    assert [json.loads(line)["step"] for line in run.metrics_path.read_text().splitlines()] == [0]
    run.close()


def test_damaged_lines_do_not_stop_a_resume(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, CONFIG)
    lines = [b"", bytes(32), b'{"stage": "adapt", "step": 1\xff}', b'{"stage": 3, "step": 1}', b'{"stage": "adapt"}']
    lines += [b'{"stage": "adapt", "step": 1, "layers": [[]]}', b'{"stage": "adapt", "step": 1, "seconds": "x"}']
    good = b'{"stage": "adapt", "step": 0, "loss": 1.0}\n'
    run.metrics_path.write_bytes(good + b"".join(line + b"\n" for line in lines))
    with pytest.warns(UserWarning, match=r"7 damaged lines \(line 2\)"):
        run.truncate_log("adapt", 1, ("prompts", "adapt"))
    run.close()
    assert run.metrics_path.read_bytes() == good


def test_a_partially_written_line_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder.open(tmp_path, CONFIG)
    run.log("adapt", 0, loss=1.0)
    whole = run.metrics_path.read_bytes()

    class Full(io.FileIO):
        def write(self, data: Any, /) -> int:
            if self.seek(0, os.SEEK_END) > len(whole):
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data[:7])

    monkeypatch.setattr("zeroshift.io.atomic.open", lambda path, *_, **__: Full(path, "ab+"), raising=False)
    with pytest.raises(ZeroshiftError, match="disk is full"):
        run.log("adapt", 1, loss=0.5)
    assert run.metrics_path.read_bytes() == whole
    run.close()


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, CONFIG)
    assert run.load_checkpoint() is None
    state = {"stage": "adapt", "step": 3, "weights": {"w": torch.arange(3.0)}, "betas": (0.0, 0.9)}
    run.save_checkpoint(state)
    loaded = run.load_checkpoint()
    assert loaded is not None
    assert torch.equal(loaded["weights"].pop("w"), state["weights"].pop("w"))
    assert loaded == state


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"cos\nsystem\n(S'true'\ntR."])
def test_damaged_or_malicious_checkpoint(tmp_path: Path, content: bytes) -> None:
    run = RunFolder.open(tmp_path, CONFIG)
    run.checkpoint_path.parent.mkdir()
    run.checkpoint_path.write_bytes(content)
    with pytest.raises(ZeroshiftError, match="damaged"):
        run.load_checkpoint()


def test_checkpoint_never_runs_code(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, CONFIG)
    run.save_checkpoint({"bad": _Touch(tmp_path / "touched")})
    with pytest.raises(ZeroshiftError, match="damaged"):
        run.load_checkpoint()
    assert not (tmp_path / "touched").exists()


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path) -> None:
    run = RunFolder.open(tmp_path, CONFIG)
    for step in (1, 2):
        run.save_checkpoint({"step": step})
    content = run.checkpoint_path.read_bytes()
    run.checkpoint_path.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    with pytest.warns(UserWarning, match=r"last\.pt is damaged.*previous\.pt"):
        assert run.load_checkpoint() == {"step": 1}
    run.checkpoint_path.unlink()  # killed while the files were replaced
    assert run.load_checkpoint() == {"step": 1}
    run.previous_checkpoint_path.write_bytes(b"")
    with pytest.raises(ZeroshiftError, match="there is no other one"):
        run.load_checkpoint()


def test_full_disk_while_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder.open(tmp_path, CONFIG)
    run.log("adapt", 0, loss=1.0)
    run.save_checkpoint({"step": 1})
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(ZeroshiftError, match="disk is full"):
        run.save_checkpoint({"step": 2})
    assert run.load_checkpoint() == {"step": 1}
    with pytest.raises(ZeroshiftError, match="disk is full"):
        run.save_image("00000001", torch.zeros(2, 3, 4, 4), columns=2)
    assert not (tmp_path / "previews" / "00000001.png").exists()
    run.close()


def test_previews_of_earlier_versions_get_the_new_names(tmp_path: Path) -> None:
    from PIL import Image

    from zeroshift.io.images import save_png

    run = RunFolder.open(tmp_path, CONFIG)
    save_png(tmp_path / "previews" / "000050.png", np.full((4, 4, 3), 7, np.uint8))
    Image.new("RGB", (4, 4)).save(tmp_path / "previews" / "000060.png")  # of the user
    run.save_image("00000100", torch.zeros(2, 3, 4, 4), columns=2)
    names = sorted(path.name for path in (tmp_path / "previews").iterdir())
    assert names == ["00000050.png", "00000100.png", "000060.png"]
    with Image.open(tmp_path / "previews" / "00000050.png") as image:
        assert image.getpixel((0, 0)) == (7, 7, 7)


def test_save_image(tmp_path: Path) -> None:
    from PIL import Image

    run = RunFolder.open(tmp_path, CONFIG)
    images = torch.linspace(-1, 1, 4)[:, None, None, None].expand(4, 3, 32, 32)
    with Image.open(run.save_image("00000001", images, columns=2)) as picture:
        assert picture.size == (65, 65)  # a gap of one pixel
        assert [picture.getpixel(at)[0] for at in ((0, 0), (33, 0), (0, 33), (64, 64))] == [0, 85, 170, 255]
