"""Pairs are written as they are drawn, in the files that were asked for."""

import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from zeroshift.io.images import save_png, to_uint8
from zeroshift.io.scaling import Scale
from zeroshift.sampling import sample_files
from zeroshift.sampling.generate import generate
from zeroshift.sampling.sample_files import FileKind, PairFiles


def drawn(numbers: range) -> tuple[torch.Tensor, torch.Tensor, Sequence[dict[str, Any]]]:
    """Images that differ: the source is brighter with each number, the target is its negative."""
    levels = torch.tensor([number / 100 for number in numbers])[:, None, None, None].expand(-1, 3, 8, 8)
    return levels, -levels, [{}] * len(numbers)


def batches(num: int) -> list[range]:
    return [range(start, min(num, start + 4)) for start in range(0, num, 4)]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize(
    ("kind", "folders"),
    [("separate", {"source", "target"}), ("pair", {"pair"}), ("both", {"source", "target", "pair"})],
)
def test_files_of_each_kind(tmp_path: Path, kind: FileKind, folders: set[str]) -> None:
    files = PairFiles(tmp_path, 6, kind=kind, scale=Scale.parse(2), columns=3)
    assert files.write(drawn, batches(6)) == 6
    assert {path.name for path in tmp_path.iterdir()} == {"grid.png", *folders}
    assert {path.name for path in folders and files.folders} == folders
    written = {path for path in tmp_path.rglob("*.png") if path.name != "grid.png"}
    assert written == set(files.paths())
    before, after = (to_uint8(images)[5].repeat(2, axis=0).repeat(2, axis=1) for images in drawn(range(6))[:2])
    expected = {"source": before, "target": after, "pair": np.concatenate([before, after], axis=1)}
    for folder in folders:
        path = tmp_path / folder / "00000005.png"
        assert (pixels(path) == expected[folder]).all()
        with Image.open(path) as image:
            assert image.text["Description"] == "scaled from 8 x 8 to 16 x 16 pixels (nearest)"  # type: ignore[attr-defined]
    assert pixels(tmp_path / "grid.png").shape == (2 * 16 + 1, 3 * 32 + 2, 3)


def test_a_title_is_a_heading_of_the_grid(tmp_path: Path) -> None:
    PairFiles(tmp_path, 2, title="photo -> zombie", columns=2, scale=Scale.parse(8)).write(drawn, batches(2))
    plain = 64
    assert pixels(tmp_path / "grid.png").shape[0] > plain + 12
    assert pixels(tmp_path / "source" / "00000000.png").shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("num", "columns", "scale", "resolution", "shown"),
    [
        (16, 4, 1, 1024, 16), (64, 4, 1, 1024, 16), (1000, 4, 1, 64, 64), (1000, 5, 1, 64, 60), (10, 4, 1, 64, 10),
        (100, 4, 4, 1024, 1), (64, 4, 4, 512, 4), (1000, 100, 1, 64, 64),
    ],
)  # fmt: skip
def test_grids_are_capped(tmp_path: Path, num: int, columns: int, scale: int, resolution: int, shown: int) -> None:
    files = PairFiles(tmp_path, num, columns=columns, scale=Scale.parse(scale))
    assert files.grid_pairs(resolution) == shown
    assert shown * 2 * (scale * resolution) ** 2 <= 40_000_000


def test_the_grid_shows_the_first_pairs(tmp_path: Path) -> None:
    assert PairFiles(tmp_path, 70).write(drawn, batches(70)) == 64
    assert pixels(tmp_path / "grid.png").shape == (16 * 8 + 15, 4 * 16 + 3, 3)
    assert len(list((tmp_path / "target").iterdir())) == 70


def test_images_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_files, "_MAX_GRID_PAIRS", 4)
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def watched(numbers: range) -> tuple[torch.Tensor, torch.Tensor, Sequence[dict[str, Any]]]:
        nonlocal most
        source, target, records = drawn(numbers)
        source, target = source.clone(), target.clone()
        alive.extend((weakref.ref(source), weakref.ref(target)))
        most = max(most, sum(one() is not None for one in alive))
        return source, target, records

    PairFiles(tmp_path, 40).write(watched, batches(40))
    assert len(alive) == 20
    assert most <= 4, "this batch and the one before"


def test_latents_are_drawn_batch_by_batch() -> None:
    asked: list[range] = []

    class Generator:
        device, num_classes, resolution = torch.device("cpu"), 0, 2

        def sample_latents(self, seed: int, samples: range) -> torch.Tensor:
            asked.append(samples)
            return torch.tensor([[float(sample)] for sample in samples])

        def codes(self, latents: torch.Tensor, labels: None, truncation_psi: float) -> torch.Tensor:
            return latents

        def synthesize(self, codes: torch.Tensor) -> torch.Tensor:
            return codes[:, :, None, None].expand(-1, 3, 2, 2)

    made = generate([Generator()], 5, truncation_psi=1.0, batch_size=2)  # type: ignore[list-item]
    assert next(made)[0].shape == (2, 3, 2, 2)
    assert asked == [range(2)]
    assert [float(batch[0][-1, 0, 0, 0]) for batch in made] == [3.0, 4.0]


def test_files_of_earlier_calls_and_versions_are_removed_and_others_kept(tmp_path: Path) -> None:
    PairFiles(tmp_path, 6, kind="both").write(drawn, batches(6))
    for side in ("source", "target"):
        save_png(tmp_path / side / "0003.png", np.zeros((4, 4, 3), np.uint8))  # of version 0.1
    Image.new("RGB", (4, 4)).save(tmp_path / "source" / "0009.png")  # of the user
    files = PairFiles(tmp_path, 2, kind="separate")
    files.write(drawn, batches(2))
    files.remove_others()
    assert not (tmp_path / "pair").exists()
    names = {side: sorted(path.name for path in (tmp_path / side).iterdir()) for side in ("source", "target")}
    assert names == {"source": ["00000000.png", "00000001.png", "0009.png"], "target": ["00000000.png", "00000001.png"]}
    replace(files, kind="pair").remove_others()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.png", "source"], "the user's file is there"
