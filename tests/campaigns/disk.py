"""Runs commands on disks that are too small: `python -m tests.campaigns.disk --help`.

The disks are file systems in memory with little space or few files, in mounts of this process only. That needs no root.
Where the system does not allow it, only limits on the size of files are tried. Commands have the rights of a normal
user.
"""

import argparse
import random
import resource
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.campaigns.commands import COMMANDS, Command, prepared, start_folder
from tests.campaigns.contents import broken_files, contents, differences
from tests.campaigns.privileges import Disk, drop_capabilities, in_private_mounts
from tests.campaigns.process import Outcome, adopt_orphans, run_command, wait_for_orphans
from tests.campaigns.sentences import failure_problems, foreign_output
from tests.campaigns.table import markdown, report, show
from tests.campaigns.tripwire import Tripwire

PAGE = 4096
KINDS = ("space", "number of files", "size of files")
WORDS = {"space": "disk is full", "number of files": "disk is full", "size of files": "larger than files may be"}


@dataclass(frozen=True)
class Whole:
    """The command with enough space."""

    before: dict[str, Any]  # contents of the folder
    after: dict[str, Any]
    needed: dict[str, int]  # what it adds; for "size of files", the largest


@dataclass
class Tally:
    """Results of one command."""

    trials: int = 0
    failed: Counter[str] = field(default_factory=Counter)  # by kind of limit
    problems: list[str] = field(default_factory=list)


def usage(folder: Path) -> dict[str, int]:
    """What the files of a folder take, by kind of limit."""
    paths = list(folder.rglob("*"))
    space = sum(-(-path.stat().st_size // PAGE) * PAGE for path in paths if path.is_file())
    return {"space": space, "number of files": len(paths)}


def run(
    command: Command, inputs: Path, folder: Path, *, other: bool = False, size: int = 0, work: Tripwire | None = None
) -> Outcome:
    """Runs the command as a normal user.

    Args:
        other: with other options, see `Command.earlier`.
        size: limit on the size of files.
        work: counts the photos that it reads, which shows whether it has begun to work.
    """

    def prepare() -> None:
        drop_capabilities()
        if work is not None:
            work.install()
        if size:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    outcome = run_command(
        command.arguments(inputs, other=other),
        folder,
        environment={"ZEROSHIFT_CACHE": str(folder / "cache")},
        prepare=prepare,
        new_interpreter=command.new_interpreter,
    )
    wait_for_orphans(outcome.group)
    return outcome


def start(command: Command, inputs: Path, folder: Path, earlier: bool) -> None:
    """Fills a folder with what the command starts from; `earlier`: also output of the command with other options."""
    start_folder(command, inputs, folder)
    if earlier and (outcome := run(command, inputs, folder, other=True)).code:
        raise RuntimeError(f"{command.name} fails before the trial: {outcome.sentences}")


def measure(command: Command, inputs: Path, folder: Path, earlier: bool) -> tuple[Whole, Path]:
    """Runs the command with enough space; returns also a copy of the folder from before."""
    start(command, inputs, folder, earlier)
    kept = Path(shutil.copytree(folder, folder.with_name(f"{folder.name}-start")))
    outcome = run(command, inputs, folder)
    if outcome.code:
        raise RuntimeError(f"{command.name} fails with enough space: {outcome.sentences}")
    before, after = usage(kept), usage(folder)
    needed = {kind: after[kind] - before[kind] for kind in before}
    new = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_mtime >= folder_time(kept)]
    needed["size of files"] = max(path.stat().st_size for path in new)
    return Whole(contents(kept), contents(folder), needed), kept


def folder_time(folder: Path) -> float:
    """When the newest file of a folder was written."""
    return max((path.stat().st_mtime for path in folder.rglob("*")), default=folder.stat().st_mtime)


def problems_of_failure(kind: str, outcome: Outcome, folder: Path, whole: Whole, measured: bool) -> list[str]:
    """What is wrong after the command met the limit; `measured`: it has results to print."""
    problems = failure_problems(outcome, WORDS[kind]) if outcome.code else foreign_output(outcome)
    if measured and "diversity" not in outcome.out:
        problems.append(f"the results are not printed: {outcome.sentences}")
    problems += [f"half-written: {name}" for name in broken_files(folder)]
    problems += [f"{path.name} is left" for path in folder.rglob(".zeroshift-*")]
    if not problems:
        present = contents(folder)
        problems += [
            f"{name} is {'changed' if name in present else 'lost'}"
            for name, content in whole.before.items()
            if present.get(name) not in (content, whole.after.get(name)) and not _is_partial(name)
        ]
    return problems


def _is_partial(name: str) -> bool:
    """Whether a file may hold a part of what is added to it; or is missing while samples are replaced one by one."""
    return name.endswith((".jsonl", "grid.png")) or "events" in name


def trial(command: Command, inputs: Path, kept: Path, folder: Path, whole: Whole, kind: str, share: float) -> list[str]:
    """Runs the command with a share of what it needs, then with enough; returns what is wrong, first whether it failed.

    Returns ["fits"] if the share was enough.
    """
    folder.mkdir()
    limit = int(whole.needed[kind] * share)
    disk = None if kind == "size of files" else Disk(folder)
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        if disk is not None:
            size, files = disk.used
            disk.resize(**({"size": size + limit or PAGE} if kind == "space" else {"files": files + limit}))
        work = Tripwire(inputs, part="photos", reads=True)
        outcome = run(command, inputs, folder, size=limit if disk is None else 0, work=work)
        measured = command.name == "evaluate" and work.count > 0
        problems = problems_of_failure(kind, outcome, folder, whole, measured)
        if disk is not None:
            disk.resize()
        again = run(command, inputs, folder)
        problems += [f"again: {problem}" for problem in foreign_output(again)]
        if again.code:
            problems.append(f"does not finish with more space: {again.sentences[-400:]}")
        problems += [f"in the end {one}" for one in differences(whole.after, contents(folder))]
        return problems or ([] if outcome.code else ["fits"])
    finally:
        if disk is not None:
            disk.remove()


def campaign(
    workspace: Path, trials: int, seed: int, names: Sequence[str], disks: bool, show: Callable[[str], None]
) -> dict[str, Tally]:
    """Runs every command with every kind of limit, at `trials` random shares of what it needs.

    Without `disks`, only the size of files is limited.
    """
    adopt_orphans()
    draw, inputs = random.Random(seed), workspace / "inputs"
    tallies = {name: Tally() for name in names}
    for name, tally in tallies.items():
        command, place = COMMANDS[name], workspace / name.replace(", ", "-")
        starts = [
            measure(command, inputs, place.with_name(f"{place.name}-{earlier}"), earlier)
            for earlier in ((False, True) if command.earlier[0] else (False,))
        ]
        for kind in KINDS if disks else KINDS[-1:]:
            for number in range(trials):
                whole, kept = starts[number % len(starts)]
                share, folder = draw.uniform(0, 1.05), place.with_name(f"{place.name}-trial-{tally.trials}")
                problems = trial(command, inputs, kept, folder, whole, kind, share)
                tally.trials += 1
                tally.failed[kind] += problems != ["fits"]
                show(f"{name}, {share:.0%} of the {kind}: {'; '.join(problems) or 'refused and resumed'}")
                if problems not in ([], ["fits"]):
                    tally.problems += [f"{name}, {share:.1%} of the {kind}: {problem}" for problem in problems]
    return tallies


def table(tallies: dict[str, Tally]) -> str:
    """The results in Markdown."""
    heads = ["command", "trials", "no space", "too many files", "files too large", "problems"]
    rows = [
        [name, tally.trials, *(tally.failed[kind] for kind in KINDS), len(tally.problems)]
        for name, tally in tallies.items()
    ]
    return markdown(heads, rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=4, help="for each command and kind of limit")
    parser.add_argument("--seed", type=int, default=0)
    quick = [name for name, command in COMMANDS.items() if not command.new_interpreter]
    parser.add_argument("--commands", nargs="*", default=quick, choices=list(COMMANDS), help="default: the quick ones")
    arguments = parser.parse_args()
    with prepared("disk") as workspace:
        return run_campaign(workspace, arguments.trials, arguments.seed, arguments.commands)


def run_campaign(workspace: Path, trials: int, seed: int, names: Sequence[str]) -> int:
    """Runs the campaign, with small disks if the system allows them, and prints its results; returns the exit code."""

    def work(disks: bool = True) -> int:
        tallies = campaign(workspace, trials, seed, names, disks, show)
        return report(table(tallies), [problem for tally in tallies.values() for problem in tally.problems])

    try:
        return in_private_mounts(work)
    except OSError as error:
        show(f"This system allows no private disks ({error.strerror}): only limits on the size of files are tried.")
        return work(disks=False)


if __name__ == "__main__":
    sys.exit(main())
