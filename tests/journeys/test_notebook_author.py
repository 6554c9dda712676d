"""The notebooks run from top to bottom with small settings, and are committed with the outputs of a full run."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
SMALL = {
    "1-first-adaptation": {"STEPS": 3, "TUNE_STEPS": 2, "NUM": 16},
    "2-your-own-generator-and-method": {"TRAIN_STEPS": 3, "STEPS": 2},
    "3-comparison-for-a-paper": {"STEPS": 1, "SEEDS": [0, 1], "NUM": 12},
}
KINDS = ("image/png", "image/gif", "text/html", "text/markdown", "text/plain")  # what a notebook prefers
MAX_KILOBYTES = 300
MACHINE = re.compile(r"/(home|root|tmp|work|Users|content)/")  # paths of a machine


def read(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parameters(notebook: Any) -> Any:
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    return cell


def shown(cell: Any) -> list[str]:
    """What a cell shows, as HTML, Markdown or text; pictures as "picture"."""
    texts = []
    for output in cell.outputs:
        data = output.get("data", {})
        kinds = [
            kind for kind in ("image/png", "image/gif", "text/html", "text/markdown", "text/plain") if kind in data
        ]
        if kinds and kinds[0].startswith("image/"):
            texts.append("picture")
        elif kinds:
            texts.append(data[kinds[0]])
        else:
            texts.append(output.get("text", ""))
    return texts


def cell_with(notebook: Any, text: str) -> Any:
    (cell,) = [cell for cell in code_cells(notebook) if text in cell.source]
    return cell


@pytest.fixture(params=SMALL)
def executed(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Any]:
    """The name of a notebook, and the notebook after a run with small settings in an empty folder."""
    name = request.param
    notebook = read(name)
    cell = parameters(notebook)
    defined = {node.targets[0].id for node in ast.parse(cell.source).body}
    assert defined == set(SMALL[name])
    cell.source = "\n".join(f"{key} = {value!r}" for key, value in SMALL[name].items())
    monkeypatch.setenv("ZEROSHIFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    scripts = str(Path(sys.executable).parent)  # the command zeroshift
    monkeypatch.setenv("PATH", f"{scripts}{os.pathsep}{os.environ['PATH']}")
    folder = tmp_path / "notebook"
    folder.mkdir()
    path = folder / f"{name}.ipynb"
    nbformat.write(notebook, path)
    command = [sys.executable, "-m", "jupyter", "execute", "--inplace", "--timeout=300", str(path)]
    # A process of its own: the client leaves event loops and sockets open.
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return name, nbformat.read(path, as_version=4)


@pytest.mark.slow
def test_it_runs_and_shows_pictures_tables_and_progress(executed: tuple[str, Any]) -> None:
    name, notebook = executed
    check = {"1": check_first_adaptation, "2": check_own_method, "3": check_comparison}[name[0]]
    check(notebook)


def check_first_adaptation(notebook: Any) -> None:
    progress = shown(cell_with(notebook, "LiveView(every=20)"))
    bars = [text for text in progress if "<progress" in text]
    assert len(bars) == 1, "one bar for the only stage, updated in place"
    assert 'value="3" max="3"' in bars[0]
    (picture,) = [text for text in progress if "<img" in text]
    assert 'alt="step 3"' in picture, "one picture, updated in place"
    results = [shown(cell) for cell in code_cells(notebook) if cell.source == "result"]
    assert "photo to zombie, compass, 3 steps" in results[0][0]
    assert "<img" in results[0][0]
    (run,) = shown(cell_with(notebook, "RunFolder"))
    assert "photo to zombie, compass" in run
    assert "<img" in run
    table = shown(cell_with(notebook, "zeroshift.evaluate"))[-1]
    assert "| measure | value | source | truth |" in table
    assert "| scs ↑ |" in table
    assert shown(cell_with(notebook, "zeroshift.translate"))[-1] == "picture"
    assert shown(cell_with(notebook, "zombie.gif")) == ["picture"]


def check_own_method(notebook: Any) -> None:
    assert shown(cell_with(notebook, "before, after")) == ["picture"]
    (history,) = shown(cell_with(notebook, "by_mine.history[0]"))
    assert set(ast.literal_eval(history)) == {"loss", "frame"}
    assert "| direction ↑ |" in shown(cell_with(notebook, "zeroshift.evaluate"))[0]


def check_comparison(notebook: Any) -> None:
    table = shown(cell_with(notebook, "compare_methods"))[-1]
    for row in ("source", "nada", "ipl"):
        assert f"| {row} |" in table
    assert shown(cell_with(notebook, "result.picture()")) == ["picture"]
    (latex,) = shown(cell_with(notebook, "print(result.latex)"))
    assert r"\toprule" in latex
    (values,) = shown(cell_with(notebook, "csv.DictReader"))
    trials = {(variant, seed) for variant, seed, _ in ast.literal_eval(values)}
    assert trials == {(variant, seed) for variant in ("nada", "ipl") for seed in "01"}


@pytest.mark.parametrize("name", SMALL)
def test_outputs_are_committed_without_paths_of_a_machine(name: str) -> None:
    path = FOLDER / f"{name}.ipynb"
    assert path.stat().st_size < MAX_KILOBYTES * 1000
    notebook = read(name)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run it from top to bottom"
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    texts = [text for cell in cells for text in (cell.source, *shown(cell))]
    texts += [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert not [found for text in texts if (found := MACHINE.search(re.sub(r"data:image/\S+|https?://\S+", "", text)))]


@pytest.mark.parametrize("name", SMALL)
def test_they_start_in_colab(name: str) -> None:
    first, second = read(name).cells[:2]
    assert f"colab.research.google.com/github/OWNER/zeroshift/blob/main/notebooks/{name}.ipynb" in first.source
    assert 'find_spec("zeroshift") is None' in second.source
    assert "%pip install -q" in second.source


def test_all_notebooks_are_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(SMALL)
