"""A folder that runs as a Hugging Face Space: the studio without training, with the runs and the package in it."""

import json
import shutil
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from importlib.resources import files
from pathlib import Path

from packaging.requirements import Requirement

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import load_generator, save_generator
from zeroshift.io.atomic import atomic_write, disk_errors
from zeroshift.io.owned_folder import replaced_folder, require_owned_folder
from zeroshift.methods.config_file import to_json
from zeroshift.report.card import model_card, without_folders
from zeroshift.report.command import command_line
from zeroshift.training.run_folder import RunFolder

__all__ = ["write_space"]

_INDEX = "space.json"
_PACKAGE = "zeroshift"
_APP = '''"""A Space of zeroshift: the pictures of the runs in `runs`, without training."""

from zeroshift.studio.pages.app import serve_space

serve_space("runs")
'''
_FRONT = """---
title: {title}
emoji: 🎨
colorFrom: indigo
colorTo: gray
sdk: gradio
sdk_version: {gradio}
app_file: app.py
pinned: false
license: {license}
---

"""


def write_space(runs: Sequence[RunFolder], out: Path) -> list[Path]:
    """Writes a folder that a Space runs as it is: app.py, requirements.txt, README.md, the runs and this package.

    The package is part of the folder, so that the Space keeps working with the version that wrote it.

    Args:
        runs: finished runs of one source generator.
        out: a new or empty folder, or one of an earlier call.

    Returns:
        The files, without those of the package.

    Raises:
        ZeroshiftError: runs that are not finished or have different sources, a folder with files of others, or a
            missing gradio.
    """
    if not runs:
        raise ZeroshiftError("Name the runs to share, such as: zeroshift studio runs/zombie --share-folder space")
    for run in runs:
        run.require_generator()
    if len({run.source for run in runs}) > 1:
        raise ZeroshiftError("These runs started from different generators. Share those of one source in one Space.")
    try:
        gradio = version("gradio")
    except PackageNotFoundError as error:
        raise ZeroshiftError(
            "The Space runs with gradio, which is not installed: pip install 'zeroshift[studio]'."
        ) from error
    require_owned_folder(out, _INDEX)
    with replaced_folder(out, _INDEX) as new, disk_errors(out):
        for run in runs:
            _write_run(run, new / "runs" / run.path.resolve().name)
        _copy_package(new)
        texts = {
            "app.py": _APP,
            "requirements.txt": "".join(f"{line}\n" for line in [*_requirements(), f"gradio=={gradio}"]),
            "README.md": _card(runs, gradio),
            _INDEX: json.dumps({"runs": [run.path.resolve().name for run in runs]}) + "\n",
        }
        for name, text in texts.items():
            with atomic_write(new / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return sorted(path for path in out.iterdir() if path.is_file())


def _write_run(run: RunFolder, folder: Path) -> None:
    """The parts of a run that its pictures need; the source generator as a file, so that nothing is downloaded."""
    folder.mkdir(parents=True)
    shutil.copyfile(run.generator_path, folder / run.generator_path.name)
    save_generator(load_generator(run.source, trust=False), folder / run.source_path.name)
    for result in run.path.glob("metrics-*.jsonl"):
        shutil.copyfile(result, folder / result.name)
    if run.pairs_path.exists():
        shutil.copyfile(run.pairs_path, folder / run.pairs_path.name)
    settings = json.dumps(without_folders(json.loads(to_json(run.config))), indent=2)
    (folder / "config.json").write_text(settings + "\n", encoding="utf-8")


def _copy_package(folder: Path) -> None:
    """This package and its metadata, by which Python finds its plug-ins."""
    source = Path(str(files(_PACKAGE)))
    shutil.copytree(source, folder / _PACKAGE, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    info = folder / f"{_PACKAGE}-{version(_PACKAGE)}.dist-info"
    info.mkdir()
    for name in ("METADATA", "entry_points.txt"):
        text = distribution(_PACKAGE).read_text(name)
        if text is not None:
            (info / name).write_text(text, encoding="utf-8")


def _requirements() -> Iterator[str]:
    """The packages that this one needs, without its extras."""
    for line in requires(_PACKAGE) or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield str(requirement).partition(";")[0].strip()


def _card(runs: Sequence[RunFolder], gradio: str) -> str:
    """README.md: the settings of the Space, then the model card of the first run."""
    targets = ", ".join(run.config.target for run in runs)
    first = runs[0]
    card = model_card(first, f"OWNER/{first.path.name}", command_line(first.config, Path("runs") / first.path.name))
    _, front, body = card.split("---\n", 2)
    license_line = next(line for line in front.splitlines() if line.startswith("license:"))
    title = json.dumps(f"{first.config.source} to {targets}"[:60], ensure_ascii=False)
    head = _FRONT.format(title=title, gradio=gradio, license=json.loads(license_line.partition(":")[2]))
    return head + body.replace("](pairs.png)", f"](runs/{first.path.resolve().name}/pairs.png)")
