"""`zeroshift adapt`: adapts a generator to a new domain."""

import argparse
import dataclasses
import os
import re
import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from zeroshift.cli.arguments import call, old_union, plain
from zeroshift.cli.output import note, show_result
from zeroshift.config.changes import SHORT
from zeroshift.config.renamed import current_name
from zeroshift.config.settings import AdaptConfig
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.architectures import looks_like_name, require_generator
from zeroshift.methods.configure import changed, common_settings, default_config, resolve, setting_names, settings
from zeroshift.methods.registry import METHODS, PRESETS
from zeroshift.report.command import HIDDEN
from zeroshift.training.default_folder import default_folder
from zeroshift.training.run_folder import RunFolder

__all__ = ["default_folder", "main", "run_adaptation"]

COMMON = (
    "target", "source", "target_texts", "target_images", "generator", "method", "encoders", "source_images_dir",
    "adapt.steps", "adapt.batch_size", "adapt.lr", "seed", "device", "precision", "preview_every", "keep_checkpoints",
    "log_with",
)  # fmt: skip
"""Settings on the short help page."""
SHORT_HELP = """\
These are the common options. All of them, with the defaults of the chosen method and generator:
zeroshift adapt --method NAME --generator NAME --help-all."""
FULL_HELP = """\
The options below belong to the chosen method and generator. For others, run:
zeroshift adapt --method NAME --generator NAME --help-all.
Short options: --encoder for --encoders; --steps, --lr, --batch-size and --layers for --adapt.steps etc."""

# Settings without which a run would do something else than asked: never ignored. Which runs have them.
_DATA = {
    "source_images_dir": "a diffusion model (--generator)",
    "class_index": "a class-conditional generator (--generator)",
}


def run_adaptation(config: AdaptConfig, out: Path) -> None:
    """Runs, resumes or extends the run in `out` to its end, and prints where the results are.

    Raises:
        ZeroshiftError: if settings, files or the folder are invalid.
        KeyboardInterrupt: on Ctrl-C; the run can be resumed.
    """
    config = resolve(config)
    # Only the leading process of `torchrun` or `accelerate launch` writes.
    leads = os.environ.get("RANK", "0") == "0"
    run = RunFolder.open(out, config) if leads else RunFolder(out, config)
    if run.finished:
        if run.made_with and not config.keep_checkpoints:  # runs of earlier versions keep theirs
            run.remove_checkpoints()
        note(f"The run in {out} is already finished.{' A larger --steps extends it.' if run.has_checkpoint else ''}")
    else:
        from zeroshift.cli.progress import Display
        from zeroshift.training.trainer import adapt

        try:
            if leads:
                _print_processes(config)
            with Display() as display:
                adapt(config, run, progress=display)
        finally:
            if leads:
                run.discard_if_unused()
        if not leads:
            return
        run.report_path.unlink(missing_ok=True)
    if not run.report_path.exists() or not run.pairs_path.exists():
        from zeroshift.report.page import write_report

        write_report(run)
    show_result(f"Images: {run.pairs_path}", run=out, images=run.pairs_path)
    show_result(f"Report: {run.report_path}", report=run.report_path, generator=run.generator_path)
    note(f"Next:   zeroshift generate {shlex.quote(str(out))} --num 64")
    note(f"        zeroshift interpolate {shlex.quote(str(out))} --seeds 1,2,3 --strength 0,1")


def _print_processes(config: AdaptConfig) -> None:
    """Prints how many processes share the work, and on what."""
    from zeroshift.core.distributed import Distributed

    distributed = Distributed(config.device)
    number = "1 process" if distributed.size == 1 else f"{distributed.size} processes"
    note(f"Running in {number} on {distributed.device.type}.", stderr=True)


def main(arguments: Sequence[str]) -> None:
    if {"-h", "--help"} & set(arguments):
        _run_command(_common_class(), ["--help"], SHORT_HELP)
        return
    arguments = [_full_name(argument) for argument in arguments]
    base = _defaults(arguments)
    arguments = _without_inapplicable(arguments, base)
    _run_command(_arguments_class(base), arguments, FULL_HELP, base)


def _run_command(
    arguments_class: type, arguments: Sequence[str], about_options: str, base: AdaptConfig | None = None
) -> None:
    """Parses the arguments and runs the adaptation.

    Args:
        arguments_class: the settings, see `_arguments_class`.
        about_options: text about the options for the help page.
        base: the defaults; None for the short help page, which needs none.
    """

    def adapt(
        config: Annotated[Any, tyro.conf.arg(name="")],
        out: Path | None = None,
        preset: str | None = None,
    ) -> None:
        """Adapt a generator to the domain named by --target, guided by CLIP.

        Writes a run folder: the adapted generator, previews, a report and the metrics of every step.

        Examples:
          zeroshift adapt --target zombie
          zeroshift adapt --target "pencil sketch" --method nada --seed 1 --out runs/sketch
          zeroshift adapt --generator stylegan2-ffhq.pkl --encoder ViT-B-32-quickgelu/openai \\
              --source photo --target disney --out runs/disney

        The same command with the same folder resumes a run.

        Terms: the guidance encoder is a CLIP model, which compares images with text. The source generator stays as it
        is; a copy of it is trained so that its images move in the encoder's feature space as the method says. A
        method's own stages, such as learning prompts, come before the adapt stage. More: docs/glossary.md.

        @OPTIONS@

        Args:
            out: The run folder; default runs/GENERATOR-TARGET-METHOD, with -seed-N for other seeds than 0.
            preset: Preset that sets the defaults below; default: the generator's preset.
        """
        assert base is not None
        values = _flatten(config)
        complete = changed(base, {name: value for name, value in values.items() if name != "method"})
        run_adaptation(complete, default_folder(complete) if out is None else out)

    # The types of these two depend on what is registered and on the method and generator.
    adapt.__annotations__["config"] = Annotated[arguments_class, tyro.conf.arg(name="")]
    adapt.__annotations__["preset"] = Literal[tuple(PRESETS)] | None
    call(adapt, "adapt", arguments, {"@OPTIONS@": about_options})


def _defaults(arguments: Sequence[str]) -> AdaptConfig:
    """The default settings for the generator, preset and method in the arguments, before these are parsed.

    Raises:
        ZeroshiftError: if there is no such generator, preset or method.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("--generator", "--preset", "--method", "--source-images-dir"):
        parser.add_argument(option, nargs="?")
    chosen, _ = parser.parse_known_args(list(arguments))
    if chosen.generator and "/" not in chosen.generator and looks_like_name(Path(chosen.generator)):
        require_generator(chosen.generator)  # a misspelt name, before anything heavy is imported
    config = default_config(chosen.generator or AdaptConfig.generator, chosen.preset, chosen.method)
    if chosen.source_images_dir:  # a run from real images has no latents, unless the user requests both
        config = dataclasses.replace(config, num_latents=0)
    return config


def _without_inapplicable(arguments: Sequence[str], config: AdaptConfig) -> list[str]:
    """The arguments without settings of other methods and generator families, with a warning for each.

    This allows one command line for several methods.
    """
    inapplicable = setting_names() - {one.name for one in settings(config)}
    kept: list[str] = []
    skipping = False
    for argument in arguments:
        if re.match(r"--?[a-zA-Z]", argument):  # an option, not a negative number
            option = argument.partition("=")[0]
            name = re.sub(r"(^|\.)no-", r"\1", option.lstrip("-")).replace("-", "_")
            skipping = name in inapplicable
            if skipping and name in _DATA:
                raise ZeroshiftError(
                    f"{option} does not apply to the method {config.method!r} with a {config.family or 'such a'} "
                    f"generator. Leave it out, or choose {_DATA[name]}."
                )
            if skipping:
                run = f"the method {config.method!r} with a {config.family or 'such a'} generator"
                warnings.warn(f"{option} does not apply to {run}. It is ignored.", stacklevel=2)
        if not skipping:
            kept.append(argument)
    return kept


def _arguments_class(config: AdaptConfig) -> type:
    """A dataclass with one field per applicable setting, grouped by the first part of the names."""
    fields: dict[str, list[tuple[str, Any, Any]]] = {"": []}
    for setting in settings(config):
        if setting.name in HIDDEN:
            continue
        group, _, name = setting.name.rpartition(".")
        kind: Any = Literal[tuple(METHODS)] if setting.name == "method" else setting.kind
        default = tyro.MISSING if setting.name == "target" else setting.value
        annotated = Annotated[kind, tyro.conf.arg(help=setting.doc, **plain(kind, setting.value))]
        fields.setdefault(group, []).append((name, annotated, dataclasses.field(default=default)))
    groups = [
        (group, dataclasses.make_dataclass(group.capitalize(), inner, frozen=True))
        for group, inner in fields.items()
        if group
    ]
    nested = [(name, kind, dataclasses.field(default_factory=kind)) for name, kind in groups]
    return dataclasses.make_dataclass("Settings", [*fields[""], *nested], frozen=True)


def _common_class() -> type:
    """The settings of COMMON for the short help page. Making it imports no method, so that the page comes at once."""
    fields: dict[str, Any] = {}
    for setting in common_settings():
        if setting.name not in COMMON:
            continue
        kind: Any = Literal[tuple(METHODS)] if setting.name == "method" else old_union(setting.kind)
        default, hints = setting.value, plain(kind, setting.value)
        if setting.name == "target":
            default = tyro.MISSING
        elif "." in setting.name or setting.name in ("encoders", "method"):  # as the preset of the generator says
            default = () if setting.name == "encoders" else setting.value
            hints = {"help_behavior_hint": "(default: as the preset says)"}
        name = next((short for short, full in SHORT.items() if full == setting.name), setting.name)
        annotated = Annotated[kind, tyro.conf.arg(help=setting.doc, **hints)]
        fields[name] = (name, annotated, dataclasses.field(default=default))
    ordered = sorted(fields.values(), key=lambda each: each[2].default is not tyro.MISSING)
    return dataclasses.make_dataclass("Settings", ordered, frozen=True)


def _flatten(config: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for spec in dataclasses.fields(config):
        value = getattr(config, spec.name)
        if dataclasses.is_dataclass(value):
            values |= {f"{spec.name}.{name}": one for name, one in _flatten(value).items()}
        else:
            values[spec.name] = value
    return values


def _full_name(argument: str) -> str:
    """The full name of an option.

    Raises:
        ZeroshiftError: for a name of version 0.1; the message states the current name.
    """
    option, equals, value = argument.partition("=")
    if not option.startswith("--"):
        return argument
    name = option[2:].removeprefix("no-").replace("-", "_")
    present = "batch_size" if name == "batch" else current_name(name)
    if present != name:
        raise ZeroshiftError(f"{option} is called --{present.replace('_', '-')} now.")
    full = SHORT.get(option[2:].replace("-", "_"))
    return (option if full is None else f"--{full.replace('_', '-')}") + equals + value
