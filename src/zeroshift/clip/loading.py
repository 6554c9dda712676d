"""Loads CLIP models: by open_clip name, or from our self-contained safetensors files."""

import difflib
import json
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

import open_clip
import torch
from safetensors import SafetensorError, safe_open

from zeroshift.clip.encoder import TEMPLATES, Encoder, Tokenizer, _shortened
from zeroshift.errors import ZeroshiftError

__all__ = ["load_encoder"]


def load_encoder(name: str, device: str | torch.device = "cpu", resize: str = "antialias") -> Encoder:
    """Loads an encoder.

    Args:
        name: "miniature"; a self-contained safetensors file (docs/architecture.md); or a model of open_clip with its
            weights, "ViT-B-32-quickgelu/openai", "ViT-B-32/path/to/weights.pt", or "hf-hub:ORGANISATION/MODEL".
        resize: see `Encoder`.
    Raises:
        ZeroshiftError: if there is no such model or file, or it cannot be read.
    """
    if name == "miniature":
        with as_file(files("zeroshift.miniature") / "weights" / "guide.safetensors") as path:
            return _load_file(path, resize).to(device)
    if Path(name).is_file():
        return _load_file(Path(name), resize).to(device)
    if name.endswith(".safetensors") and name.partition("/")[0] not in open_clip.list_models():
        raise ZeroshiftError(f"There is no encoder file {name}. Check the path.")
    return _load_open_clip(name, resize).to(device)


def _load_file(path: Path, resize: str) -> Encoder:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError as error:
        raise ZeroshiftError(f"There is no encoder file {path}. Check the path, or reinstall the package.") from error
    except (SafetensorError, OSError) as error:
        raise ZeroshiftError(
            f"{path} is not a complete safetensors file ({error}). Weights of a known open_clip model in another "
            "form are named with the model: 'MODEL/PATH', such as 'ViT-B-32-quickgelu/weights.pt'."
        ) from error
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
        words = json.loads(metadata.get("known_words", "null"))
        return Encoder(
            model,
            _simple_tokenizer(model.context_length),
            image_mean=json.loads(metadata["image_mean"]),
            image_std=json.loads(metadata["image_std"]),
            templates=json.loads(metadata.get("templates", "null")) or TEMPLATES,
            known_words=words,
            known_labels=json.loads(metadata.get("known_labels", "[]")),
            resize=resize,
        )
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ZeroshiftError(f"{path} is no encoder that can be understood: {error}.") from error


def _load_open_clip(name: str, resize: str) -> Encoder:
    hub = name.startswith("hf-hub:")
    model_name, _, pretrained = (name, "", "") if hub else name.partition("/")
    if not hub and model_name not in open_clip.list_models():
        near = difflib.get_close_matches(model_name, open_clip.list_models(), n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ZeroshiftError(f"There is no encoder {name!r}: no such file, and no such model of open_clip.{hint}")
    known = open_clip.list_pretrained_tags_by_model(model_name)
    if not hub and not (pretrained in known or Path(pretrained).is_file()):
        raise ZeroshiftError(
            f"There are no weights {pretrained!r} for {model_name}. Give a file, or one of: {', '.join(known)}, "
            f"as '{model_name}/WEIGHTS'."
        )
    tag = open_clip.get_pretrained_cfg(model_name, pretrained) if pretrained in known else {}
    try:
        model = open_clip.create_model(
            model_name,
            pretrained=pretrained or None,
            force_quick_gelu=bool(tag.get("quick_gelu")),
            require_pretrained=True,
        )
        tokenizer = open_clip.get_tokenizer(model_name)
    except Exception as error:  # open_clip passes on whatever the download, the file or the layout gave rise to
        raise ZeroshiftError(
            f"The encoder {name!r} could not be loaded ({_shortened(str(error), 300)}). "
            "Check the name, the file or the network."
        ) from error
    return Encoder(
        model, tokenizer, image_mean=model.visual.image_mean, image_std=model.visual.image_std, resize=resize
    )


@lru_cache
def _simple_tokenizer(context_length: int) -> Tokenizer:
    return open_clip.SimpleTokenizer(context_length=context_length)  # reads its vocabulary for about a second
