"""The command that repeats a run."""

import shlex
from pathlib import Path

from zeroshift.config.changes import SHORT
from zeroshift.config.settings import AdaptConfig
from zeroshift.methods.configure import default_config, flat
from zeroshift.training.run_folder import RunFolder

__all__ = ["HIDDEN", "command_line", "run_command"]

HIDDEN = ("family",)
"""Settings that are no options, because they follow from others."""


def run_command(run: RunFolder) -> str:
    """The command that repeats a run.

    A run whose source generator was given as an object names its copy of that generator, and another folder.
    """
    if not run.source_path.exists():
        return command_line(run.config, run.path)
    return command_line(run.source_config, run.path.with_name(f"{run.path.name}-again"))


def command_line(config: AdaptConfig, out: Path) -> str:
    """The command that repeats a run: its method, and the settings that differ from the defaults."""
    defaults = flat(default_config(config.generator, method=config.method))
    defaults["generator"] = AdaptConfig.generator
    del defaults["method"]  # the default method of a generator may change
    short_names = {name: short for short, name in SHORT.items()}
    words = ["zeroshift", "adapt"]
    for name, value in flat(config).items():
        if name in HIDDEN or value == defaults.get(name):
            continue
        option = "--" + short_names.get(name, name).replace("_", "-")
        if isinstance(value, bool):
            group, dot, last = option[2:].rpartition(".")
            words.append(option if value else f"--{group}{dot}no-{last}")  # tyro's form
        else:
            values = [str(one) for one in (value if isinstance(value, list) else [value])]
            # A single text that begins with a hyphen would be read as an option.
            words += [f"{option}={values[0]}"] if len(values) == 1 and values[0][:1] == "-" else [option, *values]
    return shlex.join([*words, "--out", str(out)])
