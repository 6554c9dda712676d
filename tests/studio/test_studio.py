"""The studio without its pages: runs, pictures, measures, photos, sessions."""

import os
import shlex
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.studio.conftest import RUNS, until
from zeroshift.api.drawing import Drawing
from zeroshift.cli.main import main
from zeroshift.config.settings import AdaptConfig
from zeroshift.errors import ZeroshiftError
from zeroshift.studio.engine.explorer import METADATA
from zeroshift.studio.engine.photos import MAX_BYTES
from zeroshift.studio.engine.queue import JobQueue
from zeroshift.studio.engine.sessions import MAX_PHOTOS, Session, Sessions
from zeroshift.studio.engine.studio import Studio, opened_studio
from zeroshift.training.run_folder import RunFolder

FEW = {"adapt.batch_size": 1, "adapt.layer_batch_size": 1, "preview_samples": 1, "checkpoint_every": 5}


def configured(studio: Studio, steps: int, target: str = "robot") -> AdaptConfig:
    return studio.configure("miniature", "nada", "photo", target, {**FEW, "adapt.steps": steps})


def read(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_runs_are_found_with_their_state(studio: Studio) -> None:
    assert {state.name for state in studio.workspace.states()} == set(RUNS)
    assert all(state.finished for state in studio.workspace.states())
    assert studio.state("zombie") == "finished"


@pytest.mark.slow
def test_damaged_runs_do_not_hide_the_others(studio: Studio, runs: Path) -> None:
    (runs / "broken").mkdir()
    (runs / "broken" / "config.json").write_text("{")
    assert set(studio.workspace.finished_names()) == set(RUNS)


def test_two_studios_do_not_share_a_folder(studio: Studio, runs: Path) -> None:
    with pytest.raises(ZeroshiftError, match=r"showing a studio .* \(--runs\)"), opened_studio(runs):
        pass


@pytest.mark.slow
def test_every_picture_is_drawn_again_by_its_command(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drawing = Drawing(seed=2, samples=(0, 3), strength=0.7, mix=(0.5, 0.5), style_seed=1, style_layer=4)
    sheet = studio.explorer.draw(list(RUNS), drawing)
    assert len(sheet.pictures) == 4
    assert sheet.pictures[1].label == "50% zombie + 50% pencil sketch"
    for picture in sheet.pictures[-2:]:
        assert picture.command in picture.image.info[METADATA].replace("\\", "")
        assert main(shlex.split(picture.command)[1:]) == 0
        assert np.array_equal(read("picture.png"), np.asarray(picture.image))


def test_the_truth_is_a_column_where_it_is_known(studio: Studio) -> None:
    sheet = studio.explorer.draw(list(RUNS), Drawing(samples=(0, 1)), truth=True)
    assert [column[0].label for column in sheet.columns] == [
        "photo", "zombie", "pencil sketch", "truth: zombie", "truth: pencil sketch",
    ]  # fmt: skip
    walked = studio.explorer.draw(["zombie"], Drawing(walk_seed=3, position=0.5), truth=True)
    assert len(walked.columns) == 2, "a walk leaves the samples, whose truth is known"


def test_a_generator_alone_is_drawn_if_it_is_listed(studio: Studio) -> None:
    assert len(studio.explorer.draw([], Drawing(), generator="miniature").columns) == 1
    with pytest.raises(ZeroshiftError, match="none of the generators"):
        studio.explorer.draw([], Drawing(), generator="os:getcwd")


def test_labels_are_judged_before_a_run(studio: Studio) -> None:
    assert studio.check(configured(studio, 1)) == []
    (note,) = studio.check(configured(studio, 1, target="zombee"))
    assert "not trained on the word 'zombee'" in note
    with pytest.raises(ZeroshiftError, match="the same words"):
        studio.check(configured(studio, 1, target="the photo"))


def test_names_of_runs_are_free_or_of_the_same_run(studio: Studio) -> None:
    config = configured(studio, 3)
    assert studio.run_name(config) == "miniature-robot-nada"
    RunFolder.open(studio.workspace.folder("miniature-robot-nada"), config)
    assert studio.run_name(config) == "miniature-robot-nada"
    assert studio.run_name(replace(config, truncation_psi=0.5)) == "miniature-robot-nada-2"


def test_a_finished_run_is_not_started_again_and_folders_of_others_are_kept(studio: Studio, runs: Path) -> None:
    with pytest.raises(ZeroshiftError, match="is finished"):
        studio.resume("zombie")
    (runs / "mine").mkdir()
    (runs / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(ZeroshiftError, match="holds files"):
        studio.start(configured(studio, 1), "mine")
    assert [path.name for path in (runs / "mine").iterdir()] == ["notes.txt"]
    with pytest.raises(ZeroshiftError, match="other settings"):
        studio.start(configured(studio, 1), "zombie")


@pytest.mark.slow
def test_a_run_is_stopped_and_resumed_by_another_studio(studio: Studio, runs: Path) -> None:
    job = studio.start(configured(studio, 2000))
    with pytest.raises(ZeroshiftError, match="in the queue already"):
        studio.start(configured(studio, 2000), "miniature-robot-nada")
    run = studio.workspace.run("miniature-robot-nada")
    until(lambda: studio.watcher.progress(run).step > 2)
    queue = JobQueue(runs / ".zeroshift-studio" / "jobs.json", studio._restored)  # as after a killed studio
    (adopted,) = queue.jobs
    assert adopted.state == "running"
    assert studio.state("miniature-robot-nada") == "running"
    queue.stop(adopted)
    assert queue.wait(adopted, 60)
    assert studio.queue.wait(job, 60)
    assert job.state == "stopped"
    queue.close()
    stopped_at = studio.watcher.progress(run).step
    assert run.has_checkpoint
    assert 2 < stopped_at < 2000
    resumed = studio.resume("miniature-robot-nada")
    until(lambda: studio.watcher.progress(run).step > stopped_at)
    progress = studio.watcher.progress(run)
    assert progress.curves["Adapting the generator"][0].name == "loss"
    assert progress.image() is not None
    studio.queue.stop(resumed)
    assert studio.queue.wait(resumed, 60)


def test_results_of_evaluate_are_a_table_with_truth(studio: Studio) -> None:
    import zeroshift

    assert studio.measures(["zombie"]).rows == []
    zeroshift.evaluate(studio.workspace.run("zombie"), ["clip-distance"], num=10)
    table = studio.measures(["zombie", "sketch"])
    assert table.head[:3] == ["measure", *RUNS.values()]
    assert len(table.head) >= 4, "two runs and the unadapted source"
    assert table.rows[0][0].startswith("clip-distance")


def sent(studio: Studio, name: str = "photo.png", content: bytes = b"") -> Path:
    """An uploaded file."""
    folder = studio.temporary / "upload"
    folder.mkdir(exist_ok=True)
    file = folder / name
    if content:
        file.write_bytes(content)
    else:
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)).save(file)
    return file


def test_a_photo_is_read_and_its_file_removed(studio: Studio) -> None:
    session, file = Session(), sent(studio)
    studio.photos.receive(session, str(file), "../me.png")
    assert session.name == "me.png"
    assert session.photo is not None
    assert tuple(session.photo.shape) == (3, 90, 120)
    assert not file.exists()


@pytest.mark.parametrize("name", ["wrong.png", "<img src=x onerror=alert(1)>.png"])
def test_a_wrong_file_is_a_sentence_with_its_name_and_is_removed(studio: Studio, name: str) -> None:
    file = sent(studio, "wrong.png", b"no image")
    with pytest.raises(ZeroshiftError, match="cannot be read") as caught:
        studio.photos.receive(Session(), str(file), name)
    assert str(studio.temporary) not in str(caught.value)
    assert not file.exists()


def test_files_from_elsewhere_and_large_ones_are_refused(studio: Studio, tmp_path: Path) -> None:
    elsewhere = tmp_path / "private.png"
    Image.new("RGB", (8, 8)).save(elsewhere)
    link = studio.temporary / "link.png"
    link.symlink_to(elsewhere)
    for path in (elsewhere, link, studio.temporary / ".." / elsewhere.name):
        with pytest.raises(ZeroshiftError, match="no uploaded file"):
            studio.photos.receive(Session(), str(path), "x.png")
    assert elsewhere.exists()
    large = sent(studio)
    os.truncate(large, MAX_BYTES + 1)
    with pytest.raises(ZeroshiftError, match="larger than 20 MB"):
        studio.photos.receive(Session(), str(large), "x.png")
    assert not large.exists()


def test_old_files_of_pages_are_removed(studio: Studio) -> None:
    old, new = sent(studio, "old.png"), sent(studio, "new.png")
    os.utime(old, (1, 1))
    studio.sweep(60)
    assert not old.exists()
    assert new.exists()


def test_what_visitors_sent_to_a_killed_studio_is_removed_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stay = tmp_path / "zeroshift-studio-other"
    stay.mkdir()
    with opened_studio(tmp_path / "runs") as studio:
        private = studio.temporary.parent
        sent(studio)
        record = tmp_path / "runs" / ".zeroshift-studio" / "temporary"
        text = record.read_text()
        shutil.copytree(private, tmp_path / "copy")
    assert not private.exists()
    assert not record.exists()
    shutil.copytree(tmp_path / "copy", private)  # as after a kill
    record.write_text(text)
    with opened_studio(tmp_path / "runs"):
        assert not private.exists()
    for other in (f"zeroshift-studio-x/../{stay.name}", f"./{stay.name}", str(stay), "", ".", "zeroshift-studio-\0"):
        record.write_text(other)
        with opened_studio(tmp_path / "runs"):
            assert stay.exists(), "only folders of the studio are removed"


def test_a_page_sends_a_limited_number_of_photos(studio: Studio) -> None:
    session = Session(photos=MAX_PHOTOS)
    with pytest.raises(ZeroshiftError, match=f"has sent {MAX_PHOTOS} photos"):
        studio.photos.receive(session, str(sent(studio)), "x.png")


def test_the_part_of_a_photo_is_shown_and_corrected(studio: Studio) -> None:
    session = Session()
    with pytest.raises(ZeroshiftError, match="Choose a photo first"):
        studio.photos.views(session)
    studio.photos.receive(session, str(sent(studio)), "x.png")
    assert studio.photos.square(session) == pytest.approx((12.5, 0, 100))
    studio.photos.align(session, "square", 10, 20, 50)
    assert session.align == "12.0,18.0,45.0"
    outlined, cut = studio.photos.views(session)
    assert outlined.size == (512, 384)
    assert cut.size[0] == cut.size[1]
    with pytest.raises(ZeroshiftError, match="does not fit"):
        studio.photos.align(session, "square", 200, 0, 50)
    before = session.align
    with pytest.raises(ZeroshiftError, match='Choose "The middle" or "A square of my choice"'):
        studio.photos.align(session, "face")
    assert session.align == before


@pytest.mark.slow
def test_a_photo_is_shown_in_the_domains_of_runs_and_kept_in_no_cache(
    studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZEROSHIFT_CACHE", str(tmp_path / "cache"))
    session = Session()
    studio.photos.receive(session, str(sent(studio)), "x.png")
    with pytest.raises(ZeroshiftError, match="Choose one or more runs"):
        studio.photos.invert(session, [])
    with pytest.raises(ZeroshiftError, match="not in the generator"):
        studio.photos.results(session, ["zombie"], 1.0, None)
    studio.photos.steps = studio.photos.tune_steps = 2
    job = studio.photos.invert(session, ["zombie", "sketch"])
    assert studio.queue.wait(job, 300)
    assert job.state == "done", job.message
    assert job.progress[0] > 0
    separate = studio.photos.results(session, ["zombie", "sketch"], 1.0, None)
    assert [picture.label for picture in separate] == ["photo, redrawn", "zombie", "pencil sketch"]
    (_, mixed) = studio.photos.results(session, ["zombie", "sketch"], 0.5, (0.5, 0.5))
    assert "--strength 0.5 --mix 0.5,0.5" in mixed.command
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_pages_are_forgotten_when_they_close_and_when_there_are_many() -> None:
    sessions = Sessions()
    first = sessions.get("a")
    assert sessions.get("a") is first
    sessions.close("a")
    assert sessions.get("a") is not first
    for number in range(100):
        sessions.get(str(number))
    assert len(sessions) <= 32
