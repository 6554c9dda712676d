"""A researcher: an own checkpoint, two methods, three seeds, a LaTeX table; then the results from Python."""

import csv
import json
import shlex
from pathlib import Path

import pytest

import zeroshift
from tests.helpers.evaluated_runs import FEW
from zeroshift.cli.main import main

pytestmark = pytest.mark.slow

TINY = "adapt.batch_size=2 adapt.augmentations=0 adapt.layer_batch_size=1 device=cpu"


@pytest.mark.filterwarnings(FEW)
def test_from_a_checkpoint_to_a_table(
    tiny_generator: Path, tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    zeroshift.export_generator(zeroshift.load_generator(tiny_generator), Path("mine.pkl"), "nvidia-pkl")
    command = (
        "benchmark --generator mine.pkl --targets zombie --methods nada nada:adapt.lr=0.01 --seeds 0 1 2 --steps 2 "
        f"--num 12 --metrics scs fid --processes 2 --out paper --set {TINY} 'encoders=[\"{tiny_encoder}\"]'"
    )
    for _ in range(2):  # the second time everything is there
        assert main(shlex.split(command)) == 0
    trials = json.loads(Path("paper/benchmark.json").read_text())["trials"]
    assert len([one for one in trials if one["variant"] != "source"]) == 6
    with open("paper/benchmark.csv", encoding="utf-8") as file:
        assert {row["seed"] for row in csv.DictReader(file)} >= {"0", "1", "2"}
    assert r"\toprule" in Path("paper/benchmark.tex").read_text()
    assert "Left out: fid" in Path("paper/benchmark.md").read_text(), "no reference images: a note, not an error"

    finished = sorted(path.parent for path in Path("paper/trials").rglob("generator.safetensors"))
    assert len(finished) == 6
    (sample,) = zeroshift.generate(finished[0], 1, output="pil")
    assert [image.size for image in sample] == [(16, 16)] * 2
    assert zeroshift.export(finished[0], "nvidia-pkl", "best.pkl").exists()
