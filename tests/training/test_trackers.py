"""Trackers of accelerate, with one that records its calls."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from zeroshift.config.settings import AdaptConfig
from zeroshift.errors import ZeroshiftError
from zeroshift.methods.configure import resolve
from zeroshift.training.run_folder import RunFolder


class Recorder(GeneralTracker):
    name = "recorder"
    requires_logging_directory = False
    calls: ClassVar[list[Any]] = []
    breaks = False

    def __init__(self, project: str, **kwargs: Any) -> None:
        super().__init__()
        self.calls.append(("init", project, kwargs))

    @property
    def tracker(self) -> None:
        return None

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.calls.append(("settings", values))

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        if self.breaks:
            raise ConnectionError("no network")
        self.calls.append((step, values))

    def finish(self) -> None:
        self.calls.append("finish")


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "recorder", Recorder)
    monkeypatch.setattr(Recorder, "breaks", False)
    Recorder.calls.clear()
    return Recorder


def config(*log_with: str) -> AdaptConfig:
    return resolve(AdaptConfig("zombie", log_with=log_with))


def test_a_tracker_gets_settings_and_the_steps_of_all_stages(tmp_path: Path, recorder: type[Recorder]) -> None:
    run = RunFolder.open(tmp_path / "run", config("recorder"))
    run.log("prompts", 0, loss=1.0)
    run.log("adapt", 0, loss=2.0, layers=["a"])
    run.close()
    assert not (tmp_path / "run" / "events").exists(), "TensorBoard was not chosen"
    first, (_, settings), *logged = recorder.calls
    assert first == ("init", "zeroshift", {})
    assert (settings["target"], settings["encoders"]) == ("zombie", '["miniature"]')
    assert logged == [(0, {"prompts/loss": 1.0}), (1, {"adapt/loss": 2.0}), "finish"]
    run = RunFolder.open(tmp_path / "run", config("recorder"))
    run.truncate_log("adapt", 0, ("prompts", "adapt"))
    run.log("adapt", 0, loss=3.0)
    assert recorder.calls[-1] == (1, {"adapt/loss": 3.0}), "the repeated step"


def test_a_tracker_that_fails_is_left_out(tmp_path: Path, recorder: type[Recorder]) -> None:
    run = RunFolder.open(tmp_path / "run", config("recorder", "tensorboard"))
    run.log("prompts", 0, loss=1.0)
    recorder.breaks = True
    with pytest.warns(UserWarning, match="The tracker 'recorder' failed and is left out: no network"):
        run.log("prompts", 1, loss=1.0)
    run.log("prompts", 2, loss=1.0)
    run.close()
    assert len(run.records()) == 3
    assert list((tmp_path / "run" / "events").iterdir())


def test_trackers_are_checked_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ZeroshiftError, match=r"There is no tracker 'paper'.*Choose from .*mlflow.*wandb"):
        RunFolder.open(tmp_path / "run", config("paper"))
    with pytest.raises(ZeroshiftError, match="needs its package: pip install comet-ml"):
        RunFolder.open(tmp_path / "run", config("comet_ml"))
    assert not (tmp_path / "run").exists()


def test_a_run_is_finished_only_after_its_log_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A process that is killed right after the generator was written is not started again for the log.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    import zeroshift
    from zeroshift.training import stepwise

    few = {"batch_size": 1, "layer_batch_size": 1}
    config = zeroshift.preset("miniature", target="zombie", method="nada", steps=2, adapt=few, preview_samples=1)
    logged: list[int] = []

    def save(*args: Any) -> None:
        events = EventAccumulator(str(tmp_path / "run" / "events"))
        events.Reload()
        logged.extend(event.step for event in events.Scalars("adapt/loss"))

    monkeypatch.setattr(stepwise, "save_generator", save)
    zeroshift.adapt(config, tmp_path / "run")
    assert logged == [0, 1]
