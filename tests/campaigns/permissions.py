"""Runs commands that may not read or write something: `python -m tests.campaigns.permissions --help`.

Commands have the rights of a normal user, also if root starts the campaign. A command that is refused must say in one
sentence whether reading or writing failed, name the file, and change nothing. Unusual names must not matter.
"""

import argparse
import random
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.campaigns.commands import COMMANDS, opened, prepared, start_folder
from tests.campaigns.contents import broken_files, contents, differences
from tests.campaigns.privileges import drop_capabilities
from tests.campaigns.process import Outcome, run_command
from tests.campaigns.sentences import failure_problems, foreign_output
from tests.campaigns.table import markdown, report, show

GROUPS = ("input", "output", "name", "cache")
FILES = (".mp4", ".gif", ".webp", ".safetensors")  # outputs that are files; the others are folders
CHARACTERS = [*" \n'\"é图🙂*?\\;-:=~ab", "  x", "[red]", "%03d", "$HOME"]
READING, WRITING = re.compile(r"\bread\b|\bopen|\breach", re.I), re.compile(r"\bwrit(e|ten|ing)\b", re.I)


@dataclass(frozen=True)
class Case:
    """One command in one situation."""

    group: str  # of GROUPS
    command: str
    situation: str
    prepare: Callable[[Path], None]  # changes the folder, which holds "inputs" and "run"
    out: str = ""  # value of --out; "": that of the command
    cause: str = ""  # what the sentence must be about: "read", "write", or "" for either
    named: str = ""  # must be in the sentence
    succeeds: bool = False
    warning: str = ""  # must be in a warning of a command that succeeds
    environment: dict[str, str] = field(default_factory=dict)  # "{}" in a value is the folder
    run: str = "run"  # name of the run folder


def lock(name: str, mode: int = 0) -> Callable[[Path], None]:
    """Takes rights on a file or folder away. A link to an input is replaced by a copy first."""

    def prepare(folder: Path) -> None:
        path = own(folder, name)
        path.chmod(mode)

    return prepare


def own(folder: Path, name: str) -> Path:
    """The path `name` in a folder, without links on the way: they are replaced by copies."""
    path = folder
    for part in Path(name).parts:
        path /= part
        if path.is_symlink():
            target = path.resolve()
            path.unlink()
            shutil.copytree(target, path) if target.is_dir() else shutil.copy(target, path)
    return path


def localize(folder: Path) -> None:
    """Lets the settings of the run name the inputs in this folder."""
    config = folder / "run" / "config.json"
    if config.exists():
        inputs = (folder / "inputs" / "few").resolve().parent
        config.write_text(config.read_text().replace(str(inputs), str(folder / "inputs")))


def replace(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Puts something else in the place of a file or folder."""

    def prepare(folder: Path) -> None:
        path = own(folder, name)
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)

    return prepare


def loop(path: Path) -> None:
    """A link to itself."""
    path.symlink_to(path.name)


def write_x(path: Path) -> None:
    """A file that holds an x."""
    path.write_text("x")


INPUTS = {
    "adapt": ("inputs/generator.safetensors", "inputs/encoder.safetensors"),
    "adapt, diffusion": ("inputs/diffusion", "inputs/diffusion/unet/config.json",
                         "inputs/diffusion/unet/diffusion_pytorch_model.safetensors",
                         "inputs/diffusion/scheduler/scheduler_config.json", "inputs/diffusion/model_index.json"),
    "adapt, photos": ("inputs/few", "inputs/few/00000000.png"),
    "generate": ("run", "run/config.json", "run/generator.safetensors", "inputs/generator.safetensors"),
    "evaluate": ("run/config.json", "run/generator.safetensors", "inputs/photos", "inputs/photos/00000000.png"),
    "interpolate, mp4": ("run", "run/config.json", "run/generator.safetensors"),
    "translate": ("run/config.json", "run/generator.safetensors", "inputs/few", "inputs/few/00000001.png"),
    "export, safetensors": ("run", "run/config.json", "run/generator.safetensors"),
    "export, diffusers": ("run/config.json", "run/generator.safetensors"),
}  # fmt: skip
CACHES = ("ZEROSHIFT_CACHE", "XDG_CACHE_HOME", "HF_HOME", "TORCH_HOME", "HOME")


def input_cases() -> Iterator[Case]:
    """Files and folders that cannot be read."""
    for command, paths in INPUTS.items():
        for path in paths:
            name, one_of_many = path.rpartition("/")[2], path.endswith(".png")
            yield Case("input", command, f"{path} may not be read", lock(path), cause="read", named=name)
            make, kind = (write_x, "file") if "." not in name else (Path.mkdir, "folder")
            for situation, instead in (("is a link to itself", loop), (f"is a {kind}", make)):
                warning = name if one_of_many and instead is loop else ""
                yield Case("input", command, f"{path} {situation}", replace(path, instead), named=name,
                           succeeds=one_of_many, warning=warning)  # fmt: skip
    for name in ("metrics.jsonl", "checkpoints/last.pt", "checkpoints"):
        yield Case("input", "adapt", f"{name} of a run may not be read", started(name), cause="read", named=name)


def started(name: str) -> Callable[[Path], None]:
    """A run that is to be resumed, with a file that may not be read."""

    def prepare(folder: Path) -> None:
        shutil.copytree(folder / "inputs" / "runs" / "gan", folder / "run")
        localize(folder)
        (folder / "run" / "generator.safetensors").unlink()
        if name == "checkpoints":  # a finished run has none
            (folder / "run" / name).mkdir(exist_ok=True)
        (folder / "run" / name).chmod(0)

    return prepare


def output_cases() -> Iterator[Case]:
    """Outputs that cannot be written."""
    for name, command in COMMANDS.items():
        is_file, suffix = command.out.endswith(FILES), Path(command.out).suffix
        target = f"locked/{command.out}"
        yield Case("output", name, "the folder may not be written", locked_folder, target, "write", "locked")
        yield Case("output", name, "the parent is a file", a_file, f"file/{command.out}", "write", "file")
        yield Case("output", name, "the parent is a link to itself", a_loop, f"loop/{command.out}", "", "loop")
        yield Case("output", name, "the name is too long", nothing, f"{'x' * 300}{suffix}", "", "too long")
        if is_file:
            out = f"is-a-folder{suffix}"
            yield Case("output", name, "a folder has its name", replace(out, Path.mkdir), out, "write", out)
        elif name != "evaluate":  # its --out is the beginning of two names
            out = "is-a-file"
            yield Case("output", name, "a file has its name", replace(out, write_x), out, "", out)
            yield Case("output", name, "its folder may not be written", sealed_folder, "sealed", "write", "sealed")
    for name in ("generate", "evaluate", "interpolate, mp4", "export, safetensors", "export, diffusers", "translate"):
        out = "" if name == "evaluate" else f"run/{COMMANDS[name].out}"
        yield Case("output", name, "the run may not be written", lock("run", 0o555), out, "write", "run")
    yield Case("output", "adapt", "a finished run may not be written", finished_and_locked, "", "write", "run")


def nothing(folder: Path) -> None:
    """Changes nothing."""


def locked_folder(folder: Path) -> None:
    (folder / "locked").mkdir(mode=0o555)


def sealed_folder(folder: Path) -> None:
    (folder / "sealed").mkdir(mode=0o555)


def a_file(folder: Path) -> None:
    write_x(folder / "file")


def a_loop(folder: Path) -> None:
    loop(folder / "loop")


def finished_and_locked(folder: Path) -> None:
    shutil.copytree(folder / "inputs" / "runs" / "gan", folder / "run")
    localize(folder)
    (folder / "run").chmod(0o555)


def name_cases(draw: random.Random, number: int) -> Iterator[Case]:
    """Outputs and runs with unusual names."""
    for name, command in COMMANDS.items():
        for _ in range(number):
            word = "".join(draw.sample(CHARACTERS, 6))
            out = f"{word.strip()}{Path(command.out).suffix}"
            run = "".join(draw.sample(CHARACTERS, 6)).strip()
            yield Case("name", name, f"{out!r} for {run!r}", nothing, out, succeeds=True, run=f"run {run}")


def cache_cases() -> Iterator[Case]:
    """Caches that cannot be written or are files: a warning, not an error."""
    for variable in CACHES:
        for situation, prepare in (("may not be written", locked_folder), ("is a file", a_file)):
            place = "{}/locked" if prepare is locked_folder else "{}/file"
            environment = {"ZEROSHIFT_CACHE": "", "XDG_CACHE_HOME": "", variable: place}
            uses_it = variable in ("ZEROSHIFT_CACHE", "XDG_CACHE_HOME", "HOME")
            yield Case(
                "cache", "adapt, photos", f"{variable} {situation}", prepare, succeeds=True,
                warning="ZEROSHIFT_CACHE" if uses_it else "", environment=environment,
            )  # fmt: skip


def execute(case: Case, folder: Path) -> Outcome:
    """Runs the case's command in `folder`."""
    command = COMMANDS[case.command]
    arguments = command.arguments(folder / "inputs", case.out)
    if case.run != "run":
        arguments = [f"./{case.run}" if word == "run" else word for word in arguments]
    environment = {"ZEROSHIFT_CACHE": str(folder / "cache")}
    environment |= {name: value.format(folder) for name, value in case.environment.items()}
    return run_command(
        arguments,
        folder,
        environment=environment,
        prepare=drop_capabilities,
        new_interpreter=case.group == "cache" or command.new_interpreter,
    )


def problems_of(case: Case, outcome: Outcome) -> list[str]:
    """What is wrong with the end of a case's command."""
    if case.succeeds:
        problems = foreign_output(outcome)
        if outcome.code:
            problems.append(f"exit code {outcome.code}: {outcome.sentences[-400:]}")
        if case.warning and case.warning not in outcome.err:
            problems.append(f"no warning names {case.warning}: {outcome.sentences[-400:]}")
        return problems
    problems = failure_problems(outcome, *([case.named] if case.named else []))
    sentence = outcome.sentences.rpartition("Error: ")[2]
    about = {"read": READING.search(sentence), "write": WRITING.search(sentence)}
    if case.cause and (not about[case.cause] or (case.cause == "read" and about["write"])):
        problems.append(f"not about a failure to {case.cause}: {sentence[:400]}")
    return problems


def trial(case: Case, inputs: Path, folder: Path) -> list[str]:
    """Runs one case and returns what is wrong."""
    command = COMMANDS[case.command]
    start_folder(command, inputs, folder)
    (folder / "inputs").mkdir()
    for path in inputs.iterdir():
        (folder / "inputs" / path.name).symlink_to(path)
    localize(folder)
    if case.run != "run" and command.run:
        (folder / "run").rename(folder / case.run)
    case.prepare(folder)
    before = all_contents(folder)
    outcome = execute(case, folder)
    problems = problems_of(case, outcome)
    after = all_contents(folder)
    with opened(folder):
        problems += [f"half-written: {name}" for name in broken_files(folder) if name.split(" (")[0] not in before]
    if not case.succeeds and (command.name != "evaluate" or case.group != "output"):
        problems += differences(before, after)  # `evaluate` keeps what it has measured
    if case.succeeds and case.out and not list(folder.glob(f"{glob_escape(case.out)}*")):
        problems.append(f"there is no {case.out!r}")
    return problems


def glob_escape(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)


def all_contents(folder: Path) -> dict[str, Any]:
    """Hashes of all files in a folder, and its folders."""
    with opened(folder):
        files = contents(folder, hashes_only=True)
        return files | {f"{path.relative_to(folder)}/": None for path in folder.rglob("*") if path.is_dir()}


def campaign(
    workspace: Path, seed: int, names: int, groups: Sequence[str], limit: int, show: Callable[[str], None]
) -> dict[str, dict[str, list[str]]]:
    """Runs the cases and returns their problems, by group and case; `limit`: number of cases, drawn at random."""
    draw, inputs = random.Random(seed), workspace / "inputs"
    cases = [*input_cases(), *output_cases(), *name_cases(draw, names), *cache_cases()]
    cases = [case for case in cases if case.group in groups]
    if limit:
        cases = draw.sample(cases, min(limit, len(cases)))
    results: dict[str, dict[str, list[str]]] = {group: {} for group in groups}
    for index, case in enumerate(cases):
        folder = workspace / f"case-{index}"
        title = f"{case.command}: {case.situation}"
        results[case.group][title] = problems = trial(case, inputs, folder)
        show(f"{index + 1}/{len(cases)} {title}: {'; '.join(problems[:4]) or 'right'}")
    return results


def table(results: dict[str, dict[str, list[str]]]) -> str:
    """The results in Markdown."""
    words = {"input": "input that cannot be read", "output": "output that cannot be written",
             "name": "unusual names", "cache": "cache that cannot be written"}  # fmt: skip
    rows = [[words[group], len(cases), sum(map(bool, cases.values()))] for group, cases in results.items()]
    return markdown(["situation", "cases", "with problems"], rows)


def problems_in(results: dict[str, dict[str, list[str]]]) -> list[str]:
    return [f"{case}: {problem}" for cases in results.values() for case, found in cases.items() for problem in found]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--names", type=int, default=3, help="unusual names for each command")
    parser.add_argument("--groups", nargs="*", default=list(GROUPS), choices=GROUPS)
    parser.add_argument("--cases", type=int, default=0, help="a random choice of this many cases; 0: all")
    arguments = parser.parse_args()
    with prepared("permissions") as workspace:
        results = campaign(workspace, arguments.seed, arguments.names, arguments.groups, arguments.cases, show)
    return report(table(results), problems_in(results))


if __name__ == "__main__":
    sys.exit(main())
