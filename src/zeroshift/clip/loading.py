"""Loads CLIP models: registered ones, self-contained safetensors files, and models of open_clip."""

import difflib
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zeroshift.clip.encoder import Encoder, Tokenizer
from zeroshift.clip.schema import EncoderConfig, EncoderTexts
from zeroshift.clip.weights import build, read_safetensors
from zeroshift.core.finite import require_finite_weights
from zeroshift.core.registry import Registry
from zeroshift.errors import DamagedFileError, ZeroshiftError
from zeroshift.io.foreign import first_line, matches, parse_json
from zeroshift.io.hub import looks_like_path

__all__ = ["ENCODERS", "load_encoder", "load_encoder_file", "require_encoder"]

ENCODERS: Registry[Callable[[str], Encoder]] = Registry("encoder", "zeroshift.encoders")
"""Functions `(resize) -> Encoder` by name, for encoders that are neither a file nor a model of open_clip."""

_HUB = "hf-hub:"
_TEXTS = ("image_mean", "image_std", "templates", "known_words", "known_labels")


def load_encoder(name: str, device: str | torch.device = "cpu", resize: str = "antialias") -> Encoder:
    """Loads an encoder.

    Args:
        name: a name in `ENCODERS`; a self-contained safetensors file (`load_encoder_file`); or a model of open_clip
            with its weights, such as "ViT-B-32-quickgelu/openai", "ViT-B-32/path/to/weights.pt" or
            "hf-hub:ORGANIZATION/MODEL".
        device: where the weights are placed.
        resize: see `Encoder`.
    Raises:
        ZeroshiftError: if there is no such model or file, it cannot be read, or its weights are not finite numbers.

    Examples:
        >>> encoder = load_encoder("miniature")
        >>> encoder.encode_text(["a photo of a zombie"]).shape
        torch.Size([1, 128])
    """
    require_encoder(name)
    encoder = _load(name, resize)
    require_finite_weights(encoder, f"The encoder {name}")
    return encoder.to(device)


def require_encoder(name: str) -> None:
    """Checks a name without the network: a registered or open_clip name, a file, or any name at the Hub.

    Raises:
        ZeroshiftError: if there is no such file and no such name.
    """
    model = name.partition("/")[0]
    if name in ENCODERS or name.startswith(_HUB) or os.path.isfile(name) or model in _open_clip().list_models():
        return
    if looks_like_path(name):
        load_encoder_file(Path(name))  # which says what is missing
    raise _unknown(name, model)


def _open_clip() -> Any:
    """open_clip, which takes seconds to import: `--help` and errors do without."""
    import open_clip

    return open_clip


def _load(name: str, resize: str) -> Encoder:
    if name in ENCODERS:
        return ENCODERS[name](resize)
    from zeroshift.clip.open_clip_models import load_hub_model, load_named_model

    if name.startswith(_HUB):
        return load_hub_model(name.removeprefix(_HUB), resize)
    if os.path.isfile(name):
        return load_encoder_file(Path(name), resize)
    model, _, weights = name.partition("/")
    return load_named_model(model, weights, resize)


def load_encoder_file(path: Path, resize: str = "antialias") -> Encoder:
    """Loads an encoder from a self-contained safetensors file.

    Its metadata holds JSON strings: `open_clip_config` (arguments of `open_clip.CLIP`, or with `custom_text: true` of
    `open_clip.CustomTextCLIP`), `image_mean`, `image_std`, and optionally `templates`, `known_words`, `known_labels`.
    They are checked before the model is built; names of other models or tokenizers in them are refused.

    Raises:
        ZeroshiftError: if the file is missing, incomplete or of another kind, or describes no usable model.
    """
    try:
        state, metadata = read_safetensors(path)
    except DamagedFileError as error:
        raise ZeroshiftError(
            f"{error} For other files with weights of an open_clip model, name the model too: 'MODEL/PATH', such as "
            "'ViT-B-32-quickgelu/weights.pt'."
        ) from error
    if "open_clip_config" not in metadata:
        raise ZeroshiftError(
            f"{path} does not say which model it holds. Name it with the model: 'MODEL/PATH', such as "
            f"'ViT-B-32/{path.name}'."
        )
    config, texts = _description(path, metadata)
    try:
        return _encoder(path, config, texts, state, resize)
    except ZeroshiftError as error:
        if str(path) in str(error):
            raise
        raise ZeroshiftError(f"{path} cannot be used as an encoder. {error}") from error
    except Exception as error:  # open_clip's own checks, of many types
        raise ZeroshiftError(
            f"{path} does not hold an encoder that can be built ({first_line(error)}). Check that it is the right file."
        ) from error


def _description(path: Path, metadata: dict[str, str]) -> tuple[EncoderConfig, EncoderTexts]:
    """The configuration and the texts in the metadata, checked."""
    place = f"open_clip_config in {path}"
    config = matches(EncoderConfig, parse_json(metadata["open_clip_config"], place), place)
    values = {key: parse_json(metadata[key], f"{key} in {path}") for key in _TEXTS if key in metadata}
    return config, matches(EncoderTexts, values, f"The metadata of {path}")


def _encoder(path: Path, config: EncoderConfig, texts: EncoderTexts, state: dict[str, Tensor], resize: str) -> Encoder:
    kind = _open_clip().CustomTextCLIP if config.custom_text else _open_clip().CLIP
    model: Any = build(lambda: kind(**config.arguments()), state, str(path))
    return Encoder(
        model,
        _simple_tokenizer(model.context_length),
        image_mean=texts.image_mean,
        image_std=texts.image_std,
        templates=texts.templates or None,
        known_words=texts.known_words,
        known_labels=texts.known_labels or (),
        resize=resize,
    )


def _unknown(name: str, model: str) -> ZeroshiftError:
    if os.path.isdir(name):
        return ZeroshiftError(f"{name} is a folder. Give the encoder's file in it.")
    near = difflib.get_close_matches(model, [*ENCODERS, *_open_clip().list_models()], n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return ZeroshiftError(f"There is no encoder {name!r}: no such file, and no such model of open_clip.{hint}")


@lru_cache
def _simple_tokenizer(context_length: int) -> Tokenizer:
    tokenizer: Tokenizer = _open_clip().SimpleTokenizer(context_length=context_length)  # takes about a second
    return tokenizer
