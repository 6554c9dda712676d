"""Kills commands at random moments and repeats them until they finish: `python -m tests.campaigns.kill --help`.

After every kill all files must be complete. In the end the folder must hold what an uninterrupted command leaves there,
and nothing else.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.campaigns.commands import COMMANDS, Command, prepared, start_folder
from tests.campaigns.contents import broken_files, contents, differences
from tests.campaigns.process import Outcome, adopt_orphans, run_command, wait_for_orphans
from tests.campaigns.sentences import failure_problems, foreign_output
from tests.campaigns.table import markdown, report, show
from tests.campaigns.tripwire import Tripwire

SHARES = {"adapt": 6, "adapt, diffusion": 5, "adapt, photos": 4, "generate": 4, "evaluate": 3, "interpolate, mp4": 3,
          "interpolate, gif": 1, "translate": 3, "export, safetensors": 1, "export, diffusers": 2,
          "miniature photos": 1, "benchmark": 2}  # fmt: skip
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TEMPORARY = ".zeroshift-"
LOCK = ".zeroshift-lock"  # harmless: it does not block later runs


@dataclass(frozen=True)
class Kill:
    """One kill: when, and by which signal."""

    moment: str  # "time", "file operation", "checkpoint" or "write"
    number: float  # seconds; number of the file operation; or size at which a file stops growing
    signal: signal.Signals

    def __str__(self) -> str:
        return f"{self.signal.name} at {self.moment} {self.number:.6g}"


@dataclass(frozen=True)
class Whole:
    """An uninterrupted command."""

    contents: dict[str, Any]
    seconds: float
    operations: int
    checkpoint_operations: int
    largest: int  # bytes of its largest file


@dataclass
class Tally:
    """Results of one command."""

    trials: int = 0
    kills: Counter[str] = field(default_factory=Counter)  # by signal
    moments: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def measure(command: Command, inputs: Path, folder: Path) -> Whole:
    """Runs the command without interruption.

    Raises:
        RuntimeError: if it fails.
    """
    start_folder(command, inputs, folder)
    before = {path for path in folder.rglob("*") if path.is_file()}
    wires = Tripwire(folder), Tripwire(folder, part="checkpoint")

    def prepare() -> None:
        if not command.new_interpreter:
            for wire in wires:
                wire.install()

    outcome = run(command, inputs, folder, prepare=prepare)
    if outcome.code:
        raise RuntimeError(f"{command.name} fails without a kill: {outcome.sentences}")
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file() and path not in before]
    return Whole(contents(folder), outcome.seconds, wires[0].count, wires[1].count, max(sizes))


def run(command: Command, inputs: Path, folder: Path, **options: Any) -> Outcome:
    return run_command(
        command.arguments(inputs),
        folder,
        environment={"ZEROSHIFT_CACHE": str(folder / "cache")},
        new_interpreter=command.new_interpreter,
        **options,
    )


def choose(draw: random.Random, command: Command, whole: Whole) -> Kill:
    """A random kill of a command."""
    moments = {"time": 4, "write": 2}
    if whole.operations:
        moments["file operation"] = 4
    if whole.checkpoint_operations:
        moments["checkpoint"] = 4
    moment = draw.choices(list(moments), list(moments.values()))[0]
    if moment == "write":
        return Kill(moment, int(whole.largest ** draw.uniform(0.3, 1)), signal.SIGXFSZ)
    number: float = draw.uniform(0, whole.seconds)
    if moment != "time":
        number = draw.randint(1, whole.operations if moment == "file operation" else whole.checkpoint_operations)
    return Kill(moment, number, draw.choices([signal.SIGKILL, *HANDLED], [6, 2, 2, 2])[0])


def execute(command: Command, inputs: Path, folder: Path, kill: Kill) -> Outcome:
    """Runs the command until the kill, or to its end if that comes first."""
    if kill.moment == "time":
        return run(command, inputs, folder, send=(kill.number, kill.signal))
    if kill.moment == "write":
        return run(command, inputs, folder, prepare=lambda: limit_files(int(kill.number)))

    def act() -> None:
        os.kill(os.getpid(), kill.signal)

    part = "checkpoint" if kill.moment == "checkpoint" else ""
    return run(command, inputs, folder, prepare=Tripwire(folder, int(kill.number), act, part).install)


def limit_files(size: int) -> None:
    """Lets the system kill this process in the middle of the write that takes a file beyond `size` bytes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def problems_after(kill: Kill, outcome: Outcome, folder: Path) -> list[str]:
    """What is wrong after a kill."""
    problems = foreign_output(outcome)
    expected = {0, -kill.signal}
    if kill.signal in HANDLED:
        expected |= {130, 128 + kill.signal}
    if kill.signal == signal.SIGXFSZ and outcome.code == 1:  # it hit a process that the command had started
        problems += failure_problems(outcome)
    elif outcome.code not in expected:
        problems.append(f"exit code {outcome.code}: {outcome.sentences[-300:]}")
    if kill.signal in HANDLED:
        left = [path.name for path in folder.rglob(f"{TEMPORARY}*") if path.name != LOCK]
        problems += [f"{name} is left" for name in left if f"-{outcome.group}-" in name]  # not by an earlier process
    return problems + [f"half-written: {name}" for name in broken_files(folder)]


def trial(
    draw: random.Random, command: Command, inputs: Path, folder: Path, whole: Whole, tally: Tally, kills: int
) -> int:
    """Kills the command up to `kills` times in a row, then lets it finish; returns the number of kills."""
    start_folder(command, inputs, folder)
    tally.trials += 1
    done: list[Kill] = []
    problems: list[str] = []
    for _ in range(kills):
        kill = choose(draw, command, whole)
        outcome = execute(command, inputs, folder, kill)
        if draw.random() < 0.5:  # otherwise the next start meets what is still running
            wait_for_orphans(outcome.group)
        problems += [f"after {kill}: {problem}" for problem in problems_after(kill, outcome, folder)]
        if outcome.code == 0:
            break
        done.append(kill)
    outcome = run(command, inputs, folder)
    problems += foreign_output(outcome)
    if outcome.code:
        problems.append(f"does not finish: {outcome.sentences[-500:]}")
    wait_for_orphans(outcome.group)
    problems += differences(whole.contents, contents(folder))
    tally.kills.update(kill.signal.name for kill in done)
    tally.moments.update(kill.moment for kill in done)
    if problems:
        story = ", ".join(map(str, done)) or "no kill"
        tally.problems += [f"{command.name}, {folder.name} ({story}): {problem}" for problem in problems]
    else:
        shutil.rmtree(folder)
    return len(done)


def campaign(
    workspace: Path, kills: int, seed: int, names: Sequence[str], show: Callable[[str], None]
) -> dict[str, Tally]:
    """Kills commands until the number of kills is reached."""
    adopt_orphans()
    draw, inputs = random.Random(seed), workspace / "inputs"
    wholes: dict[str, Whole] = {}
    tallies = {name: Tally() for name in names}
    done = count = 0
    while done < kills:
        name = draw.choices(names, [SHARES[name] for name in names])[0]
        command, tally = COMMANDS[name], tallies[name]
        count += 1
        if name not in wholes:
            wholes[name] = measure(command, inputs, workspace / f"whole-{len(wholes)}")
        known = len(tally.problems)
        planned = min(draw.choice((1, 1, 2, 3)), kills - done)
        done += trial(draw, command, inputs, workspace / f"trial-{count}", wholes[name], tally, planned)
        show(f"{done}/{kills} {name}: {'; '.join(tally.problems[known:]) or 'as uninterrupted'}")
    return tallies


def table(tallies: dict[str, Tally]) -> str:
    """The results in Markdown."""
    signals = ["SIGKILL", "SIGXFSZ", *(each.name for each in HANDLED)]
    heads = ["command", "kills", *signals, "in a checkpoint", "in other file operations", "problems"]
    rows = []
    for name, tally in tallies.items():
        inside = tally.moments["checkpoint"], tally.moments["file operation"] + tally.moments["write"]
        rows.append([name, tally.kills.total(), *(tally.kills[each] for each in signals), *inside, len(tally.problems)])
    return markdown(heads, rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    quick = [name for name, command in COMMANDS.items() if not command.new_interpreter]
    parser.add_argument("--commands", nargs="*", default=quick, choices=list(SHARES), help="default: the quick ones")
    arguments = parser.parse_args()
    with prepared("kill") as workspace:
        tallies = campaign(workspace, arguments.kills, arguments.seed, arguments.commands, show)
    return report(table(tallies), [problem for tally in tallies.values() for problem in tally.problems])


if __name__ == "__main__":
    sys.exit(main())
