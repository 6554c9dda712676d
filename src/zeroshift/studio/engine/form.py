"""The settings of a run as fields of a form, from the schema that the command line uses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from zeroshift.config.schema import require
from zeroshift.config.settings import AdaptConfig
from zeroshift.errors import ZeroshiftError
from zeroshift.methods.configure import changed, default_config, resolve, settings
from zeroshift.report.command import HIDDEN
from zeroshift.studio.engine.workspace import Workspace

__all__ = ["MAIN", "Field", "config_from_form", "form_fields"]

MAIN = ("adapt.steps", "adapt.lr", "seed")
"""Settings that are shown at once; the others are folded away."""
_ELSEWHERE = (*HIDDEN, "target", "source", "generator", "method", "device")  # have controls of their own, or none
_WORDS = {"lr": "learning rate", "ema": "EMA", "num": "number of", "lora": "LoRA", "l1": "L1"}


@dataclass(frozen=True)
class Field:
    """One setting in a form.

    Attributes:
        name: dotted name, such as "adapt.lr".
        group: part of the run that it belongs to, in words.
        kind: how it is shown: "bool", "int", "choice", or "text" for everything else.
        default: value as the form shows it: bool, int, or text (lists separated by commas; empty for None).
        doc: what it means.
        choices: of a "choice".
    """

    name: str
    group: str
    kind: Literal["bool", "int", "choice", "text"]
    default: bool | int | str
    doc: str
    choices: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The name in words: "adapt.lr_final" is "learning rate final"."""
        return " ".join(_WORDS.get(word, word) for word in self.name.rpartition(".")[2].split("_"))


def form_fields(generator: str, method: str) -> list[Field]:
    """The settings that apply to a generator and a method, with their defaults, in the order of the command line.

    Raises:
        ZeroshiftError: an unknown generator or method.
    """
    fields = []
    for setting in settings(default_config(generator, method=method)):
        if setting.name in _ELSEWHERE:
            continue
        kind, choices = _kind(setting.kind)
        group = setting.name.rpartition(".")[0].replace(".", " ") or "run"
        default: Any = setting.value if kind in ("bool", "int") else _text(setting.value)
        fields.append(Field(setting.name, group, kind, default, setting.doc, choices))
    return fields


def config_from_form(
    workspace: Workspace, generator: str, method: str, source: str, target: str, values: Mapping[str, Any]
) -> AdaptConfig:
    """The checked configuration of a form.

    Args:
        values: by name of the field, as the form shows them; fields that are missing keep their defaults.

    Raises:
        ZeroshiftError: naming the first setting with an invalid value, or with a file outside the chosen folders.
    """
    workspace.require_generator(generator)
    base = default_config(generator, method=method)
    kinds = {setting.name: setting.kind for setting in settings(base)}
    defaults = {field.name: field.default for field in form_fields(generator, method)}
    changes: dict[str, Any] = {}
    for name, value in values.items():
        require(name in defaults, f"There is no setting {name!r:.100} for this method and generator.")
        if value == defaults[name]:
            continue
        changes[name] = _value(name, value, kinds[name])
        texts = changes[name] if isinstance(changes[name], tuple) else (changes[name],)
        for text in texts:
            if isinstance(text, str):
                workspace.require_allowed(text, name)
    if changes.get("source_images_dir") and "num_latents" not in changes:
        changes["num_latents"] = 0  # as on the command line
    return resolve(changed(base, {**changes, "source": source.strip(), "target": target.strip()}))


def _kind(kind: Any) -> tuple[Literal["bool", "int", "choice", "text"], tuple[str, ...]]:
    """How a type is shown, and its choices."""
    if kind is bool:
        return "bool", ()
    if kind is int:
        return "int", ()
    if get_origin(kind) is Literal:
        return "choice", tuple(map(str, get_args(kind)))
    return "text", ()


def _text(value: Any) -> str:
    if value is None:
        return ""
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _value(name: str, value: Any, kind: Any) -> Any:
    """The value of a field in the type of its setting.

    Raises:
        ZeroshiftError: if it has another form.
    """
    if isinstance(value, bool) or kind is bool:
        return bool(value)
    text = str(value if value is not None else "").strip()
    inner = [one for one in get_args(kind) if one is not type(None)]
    if get_origin(kind) is tuple:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        return tuple(_value(name, part, inner[0]) for part in parts)
    if type(None) in get_args(kind):
        return None if text in ("", "None") else _value(name, text, inner[0])
    if get_origin(kind) is Literal or kind is str:
        return text
    try:
        number = float(text)
        return int(number) if kind is int and number == int(number) else number
    except (ValueError, OverflowError) as error:
        what = "a whole number" if kind is int else "a number"
        raise ZeroshiftError(f"{name} is {text!r:.100}; it must be {what}.") from error
