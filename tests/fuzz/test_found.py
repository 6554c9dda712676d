"""Faults that campaigns have found, as small cases."""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.fuzz.seed_files import INVERSION, benchmark_plan, inversion_images
from tests.helpers.diffusion_models import ddpm
from tests.helpers.evaluated_runs import make_run
from zeroshift.clip.loading import load_encoder
from zeroshift.errors import DamagedFileError, ZeroshiftError
from zeroshift.generators import load_generator
from zeroshift.inversion.codes import invert
from zeroshift.io.checksums import load_state
from zeroshift.methods.config_file import from_json
from zeroshift.methods.configure import default_config
from zeroshift.miniature.benchmark import records
from zeroshift.miniature.training.cache import cached_images
from zeroshift.networks.registry import load_network
from zeroshift.training.run_folder import RunFolder
from zeroshift.training.run_generators import load_source_and_target


def rewritten(source: Path, path: Path, **metadata: str) -> Path:
    """A copy of a safetensors file with other metadata, without its checksum."""
    with safe_open(source, "pt") as file:
        kept = {key: value for key, value in file.metadata().items() if key != "sha256"}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    save_file(tensors, path, {**kept, **metadata})
    return path


def test_a_bad_template_names_its_file(tiny_encoder: Path, tmp_path: Path) -> None:
    path = rewritten(tiny_encoder, tmp_path / "encoder.safetensors", templates='["true"]')
    with pytest.raises(
        ZeroshiftError, match=r"encoder\.safetensors cannot be used as an encoder\. The template 'true'"
    ):
        load_encoder(str(path))


def test_an_unknown_family_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "generator.safetensors"
    save_file({"x": torch.zeros(1)}, path, {"zeroshift": json.dumps({"architecture": "file:x", "config": {}})})
    with pytest.raises(
        ZeroshiftError, match=r"generator\.safetensors holds a generator of the unknown family 'file:x'"
    ):
        default_config(str(path))


def test_weights_of_another_network_name_their_file(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "hed.pytorch")
    with pytest.raises(ZeroshiftError, match=r"hed\.pytorch cannot be used as hed\. .*another model"):
        load_network(f"hed:{tmp_path / 'hed.pytorch'}")


def test_many_unknown_settings_are_one_sentence() -> None:
    with pytest.raises(ZeroshiftError, match=r"^Unknown settings: a0, a1, .{,250}$"):
        from_json(json.dumps({"target": "zombie", **{f"a{number}": 1 for number in range(1000)}}))


@pytest.mark.parametrize("content", [b"\x93NUMPY", b"PK\x05\x06" + bytes(18), b"", b"\x80\x04N."])
def test_damaged_images_of_a_training(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "images.npy"
    path.write_bytes(content)
    with pytest.raises(ZeroshiftError, match=r"images\.npy is damaged"):
        cached_images(path, lambda: torch.zeros(1, 3, 2, 2))
    np.save(path, np.zeros(3, np.float32))
    with pytest.raises(ZeroshiftError, match=r"images\.npy is damaged"):
        cached_images(path, lambda: torch.zeros(1, 3, 2, 2))


def test_a_record_that_was_evaluated_has_measures(tmp_path: Path) -> None:
    plan = benchmark_plan(tmp_path)
    trial = plan.trials()[0]
    named = dict(zip(("variant", "target", "seed"), trial.key, strict=True))
    record = {**named, "machine": "x", "provenance": {}, "evaluated_by": records.evaluators()}
    records.write_record(plan, trial, record)
    records.image_path(plan, trial).write_bytes(b"")
    with pytest.raises(ZeroshiftError, match="measures is missing"):
        records.read_record(plan, trial)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a file without an end")
def test_a_checkpoint_without_an_end(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").symlink_to("/dev/zero")
    with pytest.raises(DamagedFileError, match=r"checkpoint\.pt is damaged"):
        load_state(tmp_path / "checkpoint.pt")


def test_a_cached_inversion_without_a_checksum_is_made_again(tmp_path: Path) -> None:
    generator = load_generator(ddpm(tmp_path / "ddpm"))
    generator.configure(INVERSION)
    codes = invert(generator, inversion_images(), tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    save_file({"codes": torch.zeros(2, 2)}, file)
    assert torch.equal(invert(generator, inversion_images(), tmp_path / "cache"), codes)


@pytest.mark.parametrize("bomb", ["key", "pairs", "set"])
def test_keys_of_a_training_state_are_not_hashed_for_hours(tmp_path: Path, bomb: str) -> None:
    deep: Any = ()
    for _ in range(60):
        deep = (deep, deep)

    class Nested:
        """Pickles as something whose reading hashes `deep`, which takes 2 ** 60 steps."""

        def __reduce__(self) -> tuple[Any, ...]:
            if bomb == "pairs":
                return OrderedDict, ([[deep, 1]],)
            return (set, ([deep],)) if bomb == "set" else (OrderedDict, (), None, None, iter([(deep, 1)]))

    with open(tmp_path / "last.pt", "wb") as file:
        torch.save({"stage": "adapt", "extra": Nested()}, file)
    with pytest.raises(DamagedFileError, match=r"last\.pt is damaged"):
        load_state(tmp_path / "last.pt")


def test_an_unknown_source_generator_names_its_run(tiny_generator: Path, tmp_path: Path) -> None:
    run = make_run(tiny_generator, tmp_path / "run")
    settings = json.loads((run.path / "config.json").read_text())
    (run.path / "config.json").write_text(json.dumps({**settings, "generator": "F8_E4M3"}))
    with pytest.raises(ZeroshiftError, match=r"run cannot be loaded\. There is no known generator 'F8_E4M3'"):
        load_source_and_target(RunFolder.read(run.path))
