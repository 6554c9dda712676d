"""The model card of a run, and the folder with which a generator is shared on the Hugging Face Hub."""

import json
import os
import shlex
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from zeroshift.config.settings import AdaptConfig
from zeroshift.generators.checkpoints.catalogue import find_entry, read_header
from zeroshift.generators.checkpoints.hub_models import DESCRIPTION, GENERATOR_FILE
from zeroshift.io.atomic import atomic_write, disk_errors
from zeroshift.io.owned_folder import replaced_folder
from zeroshift.methods.config_file import to_json
from zeroshift.report.page import result_rows
from zeroshift.training.run_folder import RunFolder

__all__ = ["model_card", "without_folders", "write_hub_folder"]

_CARD = "README.md"
_USE = """## Use

```bash
zeroshift adapt --generator {repository} --target ...   # adapts it further
```

```python
from zeroshift import load_generator

generator = load_generator("{repository}")
images = generator(generator.sample_latents(0, range(4)))  # [4, 3, R, R], about within [-1, 1]
```
"""


def write_hub_folder(run: RunFolder, folder: Path, repository: str, command: str) -> list[Path]:
    """Writes what is shared of a finished run: generator, description, settings, card and pictures.

    Args:
        folder: a new or empty folder, or one of an earlier call.
        repository: "OWNER/NAME", under which it is loaded.
        command: the command that repeats the run.

    Returns:
        The files.

    Raises:
        ZeroshiftError: if the run is not finished, or the folder holds files of others.
    """
    run.require_generator()
    with replaced_folder(folder, DESCRIPTION) as new, disk_errors(folder):
        shutil.copyfile(run.generator_path, new / GENERATOR_FILE)
        if run.pairs_path.exists():
            shutil.copyfile(run.pairs_path, new / run.pairs_path.name)
        texts = {
            "config.json": json.dumps(without_folders(json.loads(to_json(run.config))), indent=2) + "\n",
            _CARD: model_card(run, repository, command),
            DESCRIPTION: json.dumps(read_header(run.generator_path), indent=2) + "\n",
        }
        for name, text in texts.items():
            with atomic_write(new / name) as temporary:
                temporary.write_text(text, encoding="utf-8")
    return sorted(path for path in folder.iterdir() if path.is_file())


def model_card(run: RunFolder, repository: str, command: str) -> str:
    """A model card in Markdown, with the metadata that the Hub reads."""
    config = run.config
    entry = find_entry(config.generator)
    license_name = entry.license if entry is not None else ""
    described = read_header(run.generator_path) or {}
    about: dict[str, Any] = {
        "library_name": "zeroshift",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["zeroshift", "domain-adaptation", config.method, described.get("architecture", "")],
    }
    about |= {"license": "mit"} if license_name == "MIT" else {"license": "other"}
    front = "\n".join(f"{name}: {json.dumps(value)}" for name, value in about.items())
    picture = "![source and adapted generator](pairs.png)\n" if run.pairs_path.exists() else ""
    sections = [
        f"---\n{front}\n---\n",
        f"# {config.target}, from {config.source}\n",
        f"A generator of {config.source!r} images (`{_source_name(config)}`), adapted to {config.target!r} from text "
        f"alone with zeroshift {version('zeroshift')}, method `{config.method}`, {run.delivered_steps} steps. The same "
        "latents show the same scenes in both domains.\n",
        picture,
        _USE.format(repository=repository),
        "## How it was made\n\nThe settings are in `config.json`. This command repeats the run:\n\n"
        f"```bash\n{_shared_command(command)}\n```\n{_made_with(run)}",
        _results(run),
        f"## Limits\n\nThe target domain is what the guidance encoder ({', '.join(config.encoders)}) understands "
        "by the text, with its biases and those of the source generator's training images. License of the source "
        f"generator: {license_name or 'unknown; see where it comes from'}.\n",
    ]
    return "\n".join(section for section in sections if section)


def _made_with(run: RunFolder) -> str:
    """Versions and device of the run; empty if it does not state them."""
    listed = ", ".join(f"{name} {value}" for name, value in run.made_with.items())
    return f"\nMade with: {listed}.\n" if listed else ""


def _is_local(value: str) -> bool:
    """Whether a setting is a path of this machine."""
    return value.startswith(("/", "~", ".")) or "\\" in value or os.path.exists(value)


def without_folders(value: Any) -> Any:
    """Settings, as read from JSON, in which paths of this machine are only names."""
    if isinstance(value, dict):
        return {key: without_folders(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_folders(one) for one in value]
    return Path(value).name if isinstance(value, str) and _is_local(value) else value


def _shared_command(command: str) -> str:
    """A command line without the folders of this machine."""
    return shlex.join(without_folders(shlex.split(command)))


def _source_name(config: AdaptConfig) -> str:
    """The source generator without the folders of this machine."""
    named = find_entry(config.generator)
    return named.name if named is not None else str(without_folders(config.generator))


def _results(run: RunFolder) -> str:
    """The results of `zeroshift evaluate`, if there are any."""
    rows: Sequence[dict[str, Any]] = result_rows(run)
    if not rows:
        return ""
    lines = ["## Results", "", "| measure | value | unadapted source |", "| --- | --- | --- |"]
    for row in rows:
        lines.append(f"| {row['measure']} {row['arrow']} | {row['value']}{row['spread']} | {row['source_value']} |")
    return "\n".join(lines) + "\n"
