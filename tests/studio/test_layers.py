"""The engine knows no interface, and the pages no models; each file of the pages is short."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import zeroshift.studio

STUDIO = Path(zeroshift.studio.__file__).parent
MODEL_WORK = {"torch", "numpy"}


def imported(file: Path) -> Iterator[str]:
    """Names of the modules that a file imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("file", sorted((STUDIO / "engine").glob("*.py")), ids=lambda file: file.name)
def test_the_engine_imports_no_gradio(file: Path) -> None:
    names = list(imported(file))
    assert not [name for name in names if name.split(".")[0] in ("gradio", "starlette", "fastapi")]
    assert not [name for name in names if name.startswith("zeroshift.studio.pages")]


@pytest.mark.parametrize("file", sorted((STUDIO / "pages").glob("*.py")), ids=lambda file: file.name)
def test_the_pages_do_no_model_work_and_are_short(file: Path) -> None:
    assert not {name.split(".")[0] for name in imported(file)} & MODEL_WORK
    assert len(file.read_text(encoding="utf-8").splitlines()) < 350
