"""`zeroshift adapt`: the main job."""

import argparse
import contextlib
import os
import re
import shlex
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from zeroshift.cli.arguments import call
from zeroshift.config.settings import PRESETS, AdaptConfig, flat, preset
from zeroshift.errors import ZeroshiftError
from zeroshift.methods import METHODS
from zeroshift.training.run_folder import RunFolder

__all__ = ["command_line", "default_config", "default_folder", "main", "run_adaptation"]

# Short names for what is set most often.
SHORT = {
    "--encoder": "--encoders",
    "--steps": "--adapt.steps",
    "--lr": "--adapt.lr",
    "--batch": "--adapt.batch_size",
    "--layers": "--adapt.layers",
}
# By preset, of the published programs; they guide every generator but the embedded ones.
ENCODERS = {"published": "ViT-B-32-quickgelu/openai", "diffusion": "ViT-B-16-quickgelu/openai"}


def default_config(generator: str, preset_name: str | None = None, method: str | None = None) -> AdaptConfig:
    """The settings for a generator, with an empty target; families and embedded ones have presets and encoders.

    Raises:
        ZeroshiftError: if there is no such preset or method.
    """
    chosen = {} if method is None else {"method": method}
    miniature = _miniature(generator)
    if miniature == "miniature":
        return preset(preset_name or "miniature", target="", generator=generator, **chosen)
    from zeroshift.generators.checkpoints.files import architecture_of

    diffuses = (architecture_of(generator) or "").startswith("diffusion")
    name = preset_name or ("miniature-diffusion" if miniature else "diffusion" if diffuses else "published")
    encoder = "miniature" if miniature else ENCODERS.get(name, ENCODERS["published"])
    return preset(name, target="", generator=generator, encoders=(encoder,), **chosen)


def _miniature(generator: str) -> str | None:
    """The embedded generator that this one is or, as a file that we wrote, was adapted from."""
    if generator == "miniature":  # nothing heavy has to be imported to know that
        return generator
    from zeroshift.generators.checkpoints.catalogue import EMBEDDED, resolve
    from zeroshift.generators.checkpoints.files import generator_metadata

    if generator in EMBEDDED:
        return generator
    if not generator.endswith(".safetensors"):
        return None
    with contextlib.suppress(ZeroshiftError):
        built = generator_metadata(generator)
        for name, (architecture, file) in EMBEDDED.items():
            if architecture == built["architecture"] and file.endswith(".safetensors"):
                config = generator_metadata(resolve(name))["config"]
                return name if config == built["config"] else None
    return None


def default_folder(config: AdaptConfig) -> Path:
    """runs/GENERATOR-TARGET-METHOD, in letters that every file system takes."""
    parts = (Path(config.generator).stem, config.target, config.method)
    return Path("runs") / "-".join(re.sub(r"[^\w.]+", "-", part).strip("-.").lower()[:40] for part in parts)


def command_line(config: AdaptConfig, out: Path) -> str:
    """The command that repeats a run: what differs from the defaults of its generator and method, and the folder."""
    settings = flat(config)
    defaults = flat(default_config(config.generator, method=config.method))
    defaults |= {"generator": "miniature", "method": AdaptConfig.method}
    long = {name: short for short, name in SHORT.items()}
    words = ["zeroshift", "adapt"]
    for name, value in settings.items():
        if value == defaults[name]:
            continue
        option = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(option if value else f"--no-{option[2:]}")
        else:
            values = value if isinstance(value, list) else [value]
            words += [long.get(option, option), *(str(one) for one in values)]
    return shlex.join([*words, "--out", str(out)])


def run_adaptation(config: AdaptConfig, out: Path) -> None:
    """Runs, resumes or extends the run in `out` to its end, and says where to look.

    Raises:
        ZeroshiftError: whatever is wrong with settings, files or folder.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, with the run ready to be resumed.
    """
    config.validate()
    # Of the processes that `accelerate launch` starts, one writes.
    leads = os.environ.get("RANK", "0") == "0"
    run = RunFolder.open(out, config) if leads else RunFolder(out, config)
    if run.finished:
        print(f"The run in {out} is finished already; more --steps would extend it.")
    else:
        from zeroshift.cli.progress import Display
        from zeroshift.training.trainer import adapt

        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # a cluster's way to press Ctrl-C
        try:
            with Display() as display:
                adapt(config, run, progress=display)
        finally:
            signal.signal(signal.SIGTERM, before)
            if leads:
                run.discard_if_unused()
        if not leads:
            return
        run.report_path.unlink(missing_ok=True)
    if not run.report_path.exists() or not run.pairs_path.exists():
        from zeroshift.report.page import write_report

        write_report(run, command_line(config, out))
    print(f"Pictures: {run.pairs_path}")
    print(f"Report:   {run.report_path}")
    print(f"Next:     zeroshift generate {shlex.quote(str(out))} --num 64")
    print(f"          zeroshift interpolate {shlex.quote(str(out))} --seeds 1,2,3 --strength 0,1")


def main(arguments: Sequence[str]) -> None:
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)  # never complains: that is left to tyro
    for option in ("--generator", "--preset", "--method", "--source-images-dir"):
        peek.add_argument(option, nargs="?")
    seen, _ = peek.parse_known_args(list(arguments))
    base = default_config(
        seen.generator or "miniature",
        seen.preset if seen.preset in PRESETS else None,
        seen.method if seen.method in METHODS else None,
    )
    # a run of real images has no latents; whoever asks for both is told
    defaults = replace(base, target=tyro.MISSING, num_latents=0 if seen.source_images_dir else base.num_latents)

    def adapt(
        config: Annotated[AdaptConfig, tyro.conf.arg(name="")] = defaults,
        out: Path | None = None,
        preset: Literal["miniature", "miniature-diffusion", "published", "diffusion"] | None = None,
    ) -> None:
        """Move a generator to the domain that --target names, guided by CLIP.

        Examples:
          zeroshift adapt --target zombie
          zeroshift adapt --target "pencil sketch" --method nada --seed 1 --out runs/sketch
          zeroshift adapt --generator stylegan2-ffhq.pkl --encoder ViT-B-32-quickgelu/openai \\
              --source photo --target disney --out runs/disney

        The same command on the same folder resumes; with more --steps it goes on.
        A method has defaults and options of its own: zeroshift adapt --method NAME --help.
        Short names: --encoder for --encoders; --steps, --lr, --batch, --layers for --adapt.steps and so on.

        Args:
            out: The run folder; runs/GENERATOR-TARGET-METHOD if not given.
            preset: Where the defaults below come from; "miniature" and "miniature-diffusion" for the embedded
                generators, "diffusion" for diffusion models, else "published".
        """
        run_adaptation(config, default_folder(config) if out is None else out)

    call(adapt, "adapt", [_lengthen(argument) for argument in arguments])


def _lengthen(argument: str) -> str:
    option, equals, value = argument.partition("=")
    return SHORT.get(option, option) + equals + value
