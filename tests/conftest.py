"""Tiny random models, saved once per session, that behave like the real ones."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch

from tests.helpers.tiny_models import save_tiny_encoder, save_tiny_generator
from zeroshift.cli.allocator import keep_freed_memory

REGISTRIES = [
    "zeroshift.clip.loading:ENCODERS",
    "zeroshift.evaluation.metrics.registry:MEASURES",
    "zeroshift.generators.checkpoints.catalogue:CATALOGUE",
    "zeroshift.generators.registry:FAMILIES",
    "zeroshift.methods.registry:METHODS",
    "zeroshift.methods.registry:PRESETS",
    "zeroshift.methods.registry:STAGES",
    "zeroshift.networks.registry:NETWORKS",
]


# A shell makes background processes, and their children, ignore Ctrl-C. The tests need it, so it is restored.
signal.signal(signal.SIGINT, signal.default_int_handler)

keep_freed_memory()  # as the commands do


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # tiny tensors, and the same sums on every machine


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `save_tiny_encoder`."""
    return save_tiny_encoder(tmp_path_factory.mktemp("models") / "encoder.safetensors")


@pytest.fixture(scope="session")
def tiny_generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `save_tiny_generator`."""
    return save_tiny_generator(tmp_path_factory.mktemp("models") / "generator.safetensors")


@pytest.fixture
def float64() -> Iterator[None]:
    """Runs in double precision, so that two computations of the same result agree on any processor.

    In float32 they may not: Adam's first steps are close to signs, and directions between similar images close to 0/0,
    so that rounding, which depends on the processor, grows within a few steps.
    """
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def example_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of tests/example_package, which acts as installed in this process and its child processes."""
    folder = Path(__file__).with_name("example_package")
    project = (folder / "pyproject.toml").read_text(encoding="utf-8")
    entry_points = re.sub(
        r'\[project\.entry-points\."(.*?)"\]', r"[\1]", project[project.index("[project.entry-points") :]
    )
    site = tmp_path / "site-packages"
    info = site / "zeroshift_example-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zeroshift-example\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(entry_points.replace('"', ""))
    paths = [str(folder), str(site)]
    for path in paths:
        monkeypatch.syspath_prepend(path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*paths, *os.environ.get("PYTHONPATH", "").split()]))
    for name in REGISTRIES:  # these read the entry points again, and drop the package afterward
        registry = resolve_name(name)
        monkeypatch.setattr(registry, "_entry_points", None)
        monkeypatch.setattr(registry, "_loaded", dict(registry._loaded))
    return folder
