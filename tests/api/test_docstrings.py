"""The examples in the docstrings of all public functions run, and give what they say."""

import doctest
import inspect
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

import zeroshift
from zeroshift import adapt, preset

FUNCTIONS = {
    name: getattr(zeroshift, name) for name in zeroshift.__all__ if inspect.isfunction(getattr(zeroshift, name))
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run and a photo, as the examples expect them."""
    path = tmp_path_factory.mktemp("examples")
    adapt(preset("miniature", "zombie", method="nada", steps=1), path / "runs" / "zombie")
    generator = zeroshift.load_generator("miniature")
    zeroshift.save_image(path / "me.png", generator(generator.sample_latents(5, range(1)))[0])
    return path


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_public_function_has_an_example(name: str) -> None:
    assert "\nExamples:\n    >>> " in (inspect.getdoc(FUNCTIONS[name]) or "")


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_example_runs(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ZEROSHIFT_CACHE", str(folder / "cache"))
    names: dict[str, Any] = {**FUNCTIONS, "zeroshift": zeroshift, "Path": Path, "numpy": numpy, "torch": torch}
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    test = doctest.DocTestParser().get_doctest(text, names, name, None, 0)
    printed: list[str] = []
    failed, tried = doctest.DocTestRunner(verbose=False).run(test, out=printed.append)
    assert tried > 0
    assert not failed, "".join(printed)
