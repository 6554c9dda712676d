"""The folders that the studio may read and write, and the runs in them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.catalogue import known_checkpoints
from zeroshift.training.run_folder import RunFolder

__all__ = ["RunState", "Workspace"]

_NAME = re.compile(r"\w[\w.-]{0,99}")
_MODEL_SUFFIXES = (".safetensors", ".pkl", ".pt", ".ckpt")


@dataclass(frozen=True)
class RunState:
    """A run as the list of runs shows it."""

    name: str
    """Name of its folder."""
    source: str
    target: str
    method: str
    generator: str
    """Source generator, as an argument of `load_generator`."""
    finished: bool
    """Whether it has an adapted generator."""


class Workspace:
    """The runs folder, and further folders with generators and images that the user has chosen.

    Args:
        runs: folder of the runs; it is created.
        models: folders of generator and encoder files that runs may start from.
    """

    def __init__(self, runs: Path, models: Sequence[Path] = ()):
        for folder in models:
            if not folder.is_dir():
                raise ZeroshiftError(f"There is no folder {folder}. Name a folder of models that exists.")
        if runs.exists() and not runs.is_dir():
            raise ZeroshiftError(f"{runs} is a file. Name a folder for the runs (--runs).")
        self.runs, self.models = runs, tuple(models)

    def folder(self, name: str) -> Path:
        """The folder of a run, existing or not.

        Raises:
            ZeroshiftError: if the name could lead out of the runs folder.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ZeroshiftError(
                f"{name!r:.100} is no name of a run. Use letters, digits, dots, hyphens and underscores."
            )
        return self.runs / name

    def run(self, name: str) -> RunFolder:
        """A run by name.

        Raises:
            ZeroshiftError: if there is no such run.
        """
        return RunFolder.read(self.folder(name))

    def finished(self, names: Sequence[str]) -> list[RunFolder]:
        """Finished runs by name.

        Raises:
            ZeroshiftError: if one of them does not exist or is not finished.
        """
        runs = [self.run(name) for name in names]
        for run in runs:
            run.require_generator()
        return runs

    def states(self) -> list[RunState]:
        """All runs, the one that was started last first. Folders that hold no readable run are left out.

        A run keeps its place while it trains: lists of a page must not change under the pointer.
        """
        return [state for _, state in sorted(self._states(), key=lambda pair: (-pair[0], pair[1].name))]

    def finished_names(self) -> list[str]:
        """Names of the finished runs, in the order of `states`."""
        return [state.name for state in self.states() if state.finished]

    def _states(self) -> list[tuple[float, RunState]]:
        found = []
        for file in self.runs.glob("*/config.json"):
            try:
                folder = self.folder(file.parent.name)
                run = RunFolder.read(folder)
                started = file.stat().st_mtime
            except (ZeroshiftError, OSError):
                continue
            config = run.config
            state = RunState(
                folder.name, config.source, config.target, config.method, run.source, run.generator_path.exists()
            )
            found.append((started, state))
        return found

    def generators(self) -> list[tuple[str, str]]:
        """Generators to adapt: (title, argument of `load_generator`); embedded ones first, then files, then downloads.

        Only these are accepted (`require_generator`): names of Python functions would run code.
        """
        embedded: list[tuple[str, str]] = []
        published: list[tuple[str, str]] = []
        for entry in known_checkpoints():
            size = f", {entry.size_mb:g} MB" if entry.size_mb else ""
            title = f"{entry.name} ({entry.resolution} pixels{size})"
            (embedded if entry.package_file else published).append((title, entry.name))
        files = [
            (str(file), str(file))
            for folder in self.models
            for file in sorted(folder.rglob("*"))
            if file.suffix in _MODEL_SUFFIXES and file.is_file()
        ]
        return [*embedded, *files, *[(f"{title}, download", name) for title, name in published]]

    def require_generator(self, generator: str) -> None:
        """Raises ZeroshiftError unless a generator is one of `generators`."""
        if generator not in [name for _, name in self.generators()]:
            raise ZeroshiftError(f"{generator!r:.100} is none of the generators of this studio. Choose one of these.")

    def require_allowed(self, value: str, setting: str) -> None:
        """Raises ZeroshiftError if the value of a setting names a file or folder outside the chosen folders."""
        for part in {value, value.partition(":")[2], value.partition("/")[2]} - {""}:
            path = Path(part).expanduser()
            looks_local = path.is_absolute() or ".." in path.parts or path.exists()
            if looks_local and not any(path.resolve().is_relative_to(folder.resolve()) for folder in self._chosen()):
                raise ZeroshiftError(
                    f"{setting} is {value!r:.200}, outside the folders of this studio. "
                    "Put the file into a folder that the studio is started with (--models)."
                )

    def _chosen(self) -> tuple[Path, ...]:
        return (self.runs, *self.models)
