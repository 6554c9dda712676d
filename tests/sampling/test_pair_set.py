"""Data sets of pairs: complete, the same bytes however often they were interrupted, readable by other programs."""

import gc
import io
import json
import tarfile
import tracemalloc
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from PIL import Image

from tests.helpers.evaluated_runs import make_run
from zeroshift.cli.main import main
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.io.images import to_uint8
from zeroshift.sampling.pair_set import Describe, Draw, PairSet, sampled_pairs, write_pairs

PAIRS = PairSet(10, 2, 4, "webdataset", {"generator": "x"})


def drawn(generators: list[Generator], describe: Describe = lambda latents: None) -> Draw:
    return sampled_pairs(generators, 3, 0.7, describe=describe)


@pytest.fixture
def generators(tiny_generator: Path) -> list[Generator]:
    source, target = (load_generator(tiny_generator).eval() for _ in range(2))
    with torch.no_grad():
        for parameter in target.synthesis.parameters():
            parameter += 0.05
    return [source, target]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def known(latents: torch.Tensor) -> list[dict[str, float]]:
    return [{"first": float(row[0])} for row in latents]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # by webdataset
def test_shards_hold_the_samples_in_order(generators: list[Generator], tmp_path: Path) -> None:
    assert list(write_pairs(tmp_path, drawn(generators, known), PAIRS)) == [0, 2, 4, 6, 8, 10]
    assert sorted(files(tmp_path)) == [
        "dataset.json", "pairs-00000000.tar", "pairs-00000004.tar", "pairs-00000008.tar",
    ]  # fmt: skip
    latents = generators[0].sample_latents(3, range(10))
    with torch.no_grad():
        expected = [to_uint8(one(latents, truncation_psi=0.7)) for one in generators]
    shards = [str(path) for path in sorted(tmp_path.glob("*.tar"))]
    rows = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False))
    gc.collect()  # closes its files here
    assert [row["__key__"] for row in rows] == [f"{number:08d}" for number in range(10)]
    for number, row in enumerate(rows):
        record = json.loads(row["json"])
        assert (record["number"], record["seed"]) == (number, 3)
        np.testing.assert_allclose(record["latent"], latents[number], rtol=1e-6)
        assert record["first"] == pytest.approx(float(latents[number, 0]))
        for side, images in zip(("source", "target"), expected, strict=True):
            pixels = np.asarray(Image.open(io.BytesIO(row[f"{side}.png"]))).astype(int)
            assert np.abs(pixels - images[number]).max() <= 1


@pytest.mark.parametrize("layout", ["webdataset", "folder"])
@pytest.mark.parametrize("stop", [0, 1, 2, 3, 4])
def test_an_interrupted_data_set_ends_as_if_it_had_not_stopped(
    generators: list[Generator], tmp_path: Path, layout: str, stop: int
) -> None:
    pairs = replace(PAIRS, layout=layout)  # type: ignore[arg-type]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    list(write_pairs(whole, drawn(generators), pairs))
    for count, _ in enumerate(write_pairs(parts, drawn(generators), pairs)):
        if count == stop:
            break
    if layout == "folder" and (parts / "metadata.jsonl").exists():
        with open(parts / "metadata.jsonl", "a") as file:
            file.write('{"number": ')  # a line that was being written
    finished = list(write_pairs(parts, drawn(generators), pairs))
    assert finished[-1] == 10
    assert files(parts) == files(whole)
    assert list(write_pairs(parts, drawn(generators), pairs)) == [10], "nothing is left to do"


def test_more_samples_extend_a_data_set(generators: list[Generator], tmp_path: Path) -> None:
    for layout in ("webdataset", "folder"):
        pairs = replace(PAIRS, layout=layout)  # type: ignore[arg-type]
        list(write_pairs(tmp_path / layout, drawn(generators), replace(pairs, num=5)))
        list(write_pairs(tmp_path / layout, drawn(generators), pairs))
        list(write_pairs(tmp_path / f"{layout}-whole", drawn(generators), pairs))
        assert files(tmp_path / layout) == files(tmp_path / f"{layout}-whole")


def test_a_folder_has_a_line_for_each_pair(generators: list[Generator], tmp_path: Path) -> None:
    list(write_pairs(tmp_path, drawn(generators, known), replace(PAIRS, layout="folder", num=3)))
    records = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text().splitlines()]
    assert [record["file_name"] for record in records] == [f"target/{number:08d}.png" for number in range(3)]
    for record in records:
        for name in ("file_name", "source_file_name"):
            with Image.open(tmp_path / record[name]) as image:
                assert image.size == (16, 16)


def test_folders_of_others_and_other_settings_are_refused(generators: list[Generator], tmp_path: Path) -> None:
    list(write_pairs(tmp_path / "set", drawn(generators), PAIRS))
    before = files(tmp_path / "set")
    for change in ({"batch_size": 1}, {"layout": "folder"}, {"described": {"generator": "y"}}):
        with pytest.raises(ZeroshiftError, match="holds a data set with other settings"):
            next(write_pairs(tmp_path / "set", drawn(generators), replace(PAIRS, **change)))  # type: ignore[arg-type]
    assert files(tmp_path / "set") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ZeroshiftError, match="holds no data set of zeroshift"):
        next(write_pairs(tmp_path / "mine", drawn(generators), PAIRS))
    with pytest.raises(ZeroshiftError, match="holds more than 4 pairs already"):
        list(write_pairs(tmp_path / "set", drawn(generators), replace(PAIRS, num=4)))
    damaged = tmp_path / "set" / "pairs-00000004.tar"
    damaged.write_bytes(damaged.read_bytes()[:700])
    list(write_pairs(tmp_path / "set", drawn(generators), PAIRS))
    assert files(tmp_path / "set") == before, "a damaged shard is written again"


def test_a_second_process_is_refused(generators: list[Generator], tmp_path: Path) -> None:
    first = write_pairs(tmp_path, drawn(generators), PAIRS)
    next(first)
    with pytest.raises(ZeroshiftError, match="Another process is writing a data set in"):
        next(write_pairs(tmp_path, drawn(generators), PAIRS))
    assert list(first)[-1] == 10
    assert list(write_pairs(tmp_path, drawn(generators), PAIRS)) == [10]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_pairs(generators: list[Generator], tmp_path: Path) -> None:
    peaks = []
    for num in (16, 160):
        tracemalloc.start()
        list(write_pairs(tmp_path / str(num), drawn(generators), replace(PAIRS, num=num, shard_size=8)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    small, large = peaks
    assert large < small * 1.3 + 200_000


def test_the_command_writes_both_layouts(tiny_generator: Path, tmp_path: Path) -> None:
    run = make_run(tiny_generator, tmp_path / "run").path
    for _ in range(2):
        assert main(["generate", str(run), "--num", "3", "--format", "webdataset", "--shard-size", "1"]) == 0
    folder = run / "pairs-seed-0"
    with tarfile.open(folder / "pairs-00000000.tar") as tar:
        assert tar.getnames() == [
            f"{number:08d}.{end}" for number in range(3) for end in ("json", "source.png", "target.png")
        ]
    assert main(["generate", str(run), "--num", "2", "--format", "pairs", "--out", str(tmp_path / "pairs")]) == 0
    assert len((tmp_path / "pairs" / "metadata.jsonl").read_text().splitlines()) == 2


def test_the_miniature_world_knows_its_factors() -> None:
    from zeroshift.miniature.truth_figures import DiffusionTruth, StyleGANTruth
    from zeroshift.miniature.world.factors import FACTORS

    latents = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    people = StyleGANTruth().factors(latents)
    assert people is not None
    assert DiffusionTruth().factors(latents) is None
    assert all(set(person) == {factor.name for factor in FACTORS} for person in people)
    assert all(one != other for one, other in pairwise(people))
    classes = {factor.name: factor.classes for factor in FACTORS if factor.is_class}
    assert all(person[name] in names for person in people for name, names in classes.items())
    json.dumps(people)
