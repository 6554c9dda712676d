"""Loads CLIP models: registered ones, self-contained safetensors files, and models of open_clip."""

import difflib
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors import SafetensorError, safe_open

from zeroshift.clip.encoder import TEMPLATES, Encoder, Tokenizer, shorten
from zeroshift.core.registry import Registry
from zeroshift.errors import ZeroshiftError

__all__ = ["ENCODERS", "load_encoder", "load_encoder_file"]

ENCODERS: Registry[Callable[[str], Encoder]] = Registry("encoder", "zeroshift.encoders")
"""Functions `(resize) -> Encoder` by name, for encoders that are neither a file nor a model of open_clip."""


def load_encoder(name: str, device: str | torch.device = "cpu", resize: str = "antialias") -> Encoder:
    """Loads an encoder.

    Args:
        name: a name in `ENCODERS`; a self-contained safetensors file (`load_encoder_file`); or a model of open_clip
            with its weights, such as "ViT-B-32-quickgelu/openai", "ViT-B-32/path/to/weights.pt" or
            "hf-hub:ORGANIZATION/MODEL".
        device: where the weights are placed.
        resize: see `Encoder`.
    Raises:
        ZeroshiftError: if there is no such model or file, or it cannot be read.
    """
    if name in ENCODERS:
        return ENCODERS[name](resize).to(device)
    if Path(name).is_file():
        return load_encoder_file(Path(name), resize).to(device)
    if name.endswith(".safetensors") and name.partition("/")[0] not in open_clip.list_models():
        raise ZeroshiftError(f"There is no encoder file {name}. Check the path.")
    return _load_open_clip(name, resize).to(device)


def load_encoder_file(path: Path, resize: str = "antialias") -> Encoder:
    """Loads an encoder from a self-contained safetensors file.

    Its metadata holds JSON strings: `open_clip_config` (arguments of `open_clip.CLIP`, or with `custom_text: true` of
    `open_clip.CustomTextCLIP`), `image_mean`, `image_std`, and optionally `templates`, `known_words`, `known_labels`.

    Raises:
        ZeroshiftError: if the file is missing, incomplete or of another kind.
    """
    metadata, state = _read_safetensors(path)
    if "open_clip_config" not in metadata:
        raise ZeroshiftError(
            f"{path} does not say which model it holds. Name it with the model: 'MODEL/PATH', such as "
            f"'ViT-B-32/{path.name}'."
        )
    try:
        config = json.loads(metadata["open_clip_config"])
        custom = config.pop("custom_text", False)
        model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
        model.load_state_dict({key: value.float() for key, value in state.items()})
        return Encoder(
            model,
            _simple_tokenizer(model.context_length),
            image_mean=json.loads(metadata["image_mean"]),
            image_std=json.loads(metadata["image_std"]),
            templates=json.loads(metadata.get("templates", "null")) or TEMPLATES,
            known_words=json.loads(metadata.get("known_words", "null")),
            known_labels=json.loads(metadata.get("known_labels", "[]")),
            resize=resize,
        )
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ZeroshiftError(
            f"{path} does not hold an encoder ({shorten(str(error), 300)}). Check that it is the right file."
        ) from error


def _read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError as error:
        raise ZeroshiftError(f"There is no encoder file {path}. Check the path, or reinstall the package.") from error
    except (SafetensorError, OSError) as error:
        raise ZeroshiftError(
            f"{path} is not a complete safetensors file ({error}). For other files with weights of an open_clip model, "
            "name the model too: 'MODEL/PATH', such as 'ViT-B-32-quickgelu/weights.pt'."
        ) from error
    return metadata, state


def _load_open_clip(name: str, resize: str) -> Encoder:
    hub = name.startswith("hf-hub:")
    model_name, _, pretrained = (name, "", "") if hub else name.partition("/")
    if not hub and model_name not in open_clip.list_models():
        near = difflib.get_close_matches(model_name, [*ENCODERS, *open_clip.list_models()], n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ZeroshiftError(f"There is no encoder {name!r}: no such file, and no such model of open_clip.{hint}")
    tags = open_clip.list_pretrained_tags_by_model(model_name)
    if not hub and not (pretrained in tags or Path(pretrained).is_file()):
        raise ZeroshiftError(
            f"There are no weights {pretrained!r} for {model_name}. Give a file, or one of: {', '.join(tags)}, "
            f"as '{model_name}/WEIGHTS'."
        )
    tag: dict[str, Any] = open_clip.get_pretrained_cfg(model_name, pretrained) if pretrained in tags else {}
    try:
        model = open_clip.create_model(
            model_name,
            pretrained=pretrained or None,
            force_quick_gelu=bool(tag.get("quick_gelu")),
            require_pretrained=True,
        )
        tokenizer = open_clip.get_tokenizer(model_name)
    except Exception as error:  # open_clip raises many types of errors for downloads, files and layouts
        raise ZeroshiftError(
            f"The encoder {name!r} could not be loaded ({shorten(str(error), 300)}). "
            "Check the name, the file and the network."
        ) from error
    return Encoder(
        model, tokenizer, image_mean=model.visual.image_mean, image_std=model.visual.image_std, resize=resize
    )


@lru_cache
def _simple_tokenizer(context_length: int) -> Tokenizer:
    tokenizer: Tokenizer = open_clip.SimpleTokenizer(context_length=context_length)  # takes about a second
    return tokenizer
