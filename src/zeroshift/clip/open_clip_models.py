"""Models of open_clip by name, with published weights or those in a file.

open_clip's own loader is not used: it asks the network for what is cached, retries for a minute without one, runs
TorchScript programs, and follows names in foreign configurations.
"""

import os
import zipfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.factory import load_checkpoint
from open_clip.model import convert_to_custom_text_state_dict
from torch import Tensor, nn

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.layouts import ClipWeights, read_clip
from zeroshift.clip.schema import HubConfig
from zeroshift.clip.weights import load_into
from zeroshift.errors import ZeroshiftError
from zeroshift.io.downloads import cache_folder, download
from zeroshift.io.foreign import first_line, matches, read_json
from zeroshift.io.hub import from_hub, hub_file, looks_like_path

__all__ = ["load_hub_model", "load_named_model"]

_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # in repositories of open_clip
_SPARE = 64 * 2**20


def load_named_model(model: str, weights: str, resize: str) -> Encoder:
    """A model of open_clip.

    Args:
        model: a name in `open_clip.list_models()`.
        weights: the name of published weights, or a file.
        resize: see `Encoder`.

    Raises:
        ZeroshiftError: no such weights, no network to download them, or a file that holds another model.
    """
    tags = open_clip.list_pretrained_tags_by_model(model)
    config = open_clip.get_model_config(model)
    tag: dict[str, Any] = open_clip.get_pretrained_cfg(model, weights) if weights in tags else {}
    name = f"{model}/{weights}"
    if tag:
        path = _published(name, tag)
        config["quick_gelu"] = bool(tag.get("quick_gelu")) or bool(config.get("quick_gelu"))
    elif weights and (looks_like_path(weights) or os.path.exists(weights)):
        path = Path(weights)
    else:
        raise ZeroshiftError(
            f"There are no weights {weights!r} for {model}. Give a file, or one of: {', '.join(tags)}, as "
            f"'{model}/WEIGHTS'."
        )
    mean, std = _normalization(model, tag)
    return _load(name, config, path, lambda: open_clip.get_tokenizer(model), mean, std, resize)


def load_hub_model(repository: str, resize: str) -> Encoder:
    """A model of open_clip in a repository of the Hugging Face Hub, "OWNER/MODEL".

    Raises:
        ZeroshiftError: no such model, no network to download it, or a model that open_clip cannot build.
    """
    file = hub_file(repository, ["open_clip_config.json"])
    description = read_json(file)
    checked = matches(HubConfig, description, str(file))
    mean = checked.preprocess_cfg.mean or open_clip.OPENAI_DATASET_MEAN
    std = checked.preprocess_cfg.std or open_clip.OPENAI_DATASET_STD
    name = f"hf-hub:{repository}"
    path = hub_file(repository, _WEIGHTS)
    return _load(name, description["model_cfg"], path, lambda: open_clip.get_tokenizer(name), mean, std, resize)


def _load(name: str, config: dict[str, Any], path: Path, tokenizer: Any, mean: Any, std: Any, resize: str) -> Encoder:
    """The encoder of a configuration with the weights in a file."""
    try:
        if path.suffix == ".npz":
            model = _build(config, name)
            _load_big_vision(model, path)
        else:
            weights = read_clip(path)
            model = _build(_with_activation(config, weights), name)
            load_into(model, _for_model(model, weights), str(path))
        words = from_hub(tokenizer, f"The tokenizer of {name!r}") if _reaches_hub(config) else tokenizer()
        return Encoder(model, words, image_mean=mean, image_std=std, resize=resize)
    except ZeroshiftError:
        raise
    except Exception as error:  # open_clip, timm and transformers raise many types
        raise ZeroshiftError(f"The encoder {name!r} could not be loaded from {path} ({first_line(error)}).") from error


def _reaches_hub(config: dict[str, Any]) -> bool:
    text = config["text_cfg"]
    return bool(text.get("hf_tokenizer_name") or text.get("hf_model_name"))


def _build(config: dict[str, Any], name: str) -> Any:
    """The model of a configuration, with random weights."""
    config = deepcopy(config)
    custom = config.pop("custom_text", False)
    for tower, library in (("vision_cfg", "timm"), ("text_cfg", "hf")):
        if config[tower].get(f"{library}_model_name"):
            config[tower][f"{library}_model_pretrained"] = False
            custom = custom or library == "hf"
    kind: Any = open_clip.CLIP
    if custom:
        kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    if config["text_cfg"].get("hf_model_name"):
        return from_hub(lambda: kind(**config), f"The text tower of {name!r}")
    return kind(**config)


def _with_activation(config: dict[str, Any], weights: ClipWeights) -> dict[str, Any]:
    return config if weights.quick_gelu is None else {**config, "quick_gelu": weights.quick_gelu}


def _for_model(model: Any, weights: ClipWeights) -> dict[str, Tensor]:
    """The weights under the names of this model, as open_clip converts them."""
    state: dict[str, Tensor] = convert_state_dict(model, weights.state)
    if not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for scalar in ("logit_scale", "logit_bias"):
        expected = getattr(model, scalar, None)
        if expected is not None and scalar in state and state[scalar].numel() == 1:
            state[scalar] = state[scalar].reshape(expected.shape)
    if getattr(model, "logit_bias", None) is not None:
        state.setdefault("logit_bias", torch.zeros_like(model.logit_bias))
    return state


def _load_big_vision(model: nn.Module, path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > 4 * path.stat().st_size + _SPARE:
            raise ZeroshiftError(f"{path} claims to unpack to far more than its own size.")
    load_checkpoint(model, str(path))


def _published(name: str, tag: dict[str, Any]) -> Path:
    try:
        return _find(tag)
    except ZeroshiftError as error:
        raise ZeroshiftError(f"The weights of the encoder {name!r} are missing: {error}") from error


def _find(tag: dict[str, Any]) -> Path:
    """The file of published weights, downloaded if it is not in a cache."""
    if tag.get("file"):
        return Path(tag["file"])
    if tag.get("hf_hub"):
        repository, _, file = tag["hf_hub"].rpartition("/")
        safe = [str(Path(file).with_suffix(".safetensors"))] if file else []
        return hub_file(repository, [*safe, file] if file else _WEIGHTS)
    address = tag["url"]
    name = address.rpartition("/")[2]
    cached = Path("~/.cache/clip").expanduser() / name  # where open_clip puts it
    return (
        cached
        if cached.is_file()
        else download(address, cache_folder() / "encoders" / name, sha256=_sha256_in(address))
    )


def _sha256_in(address: str) -> str:
    """The SHA-256 of a file, or its first digits, from its address."""
    folder, _, name = address.rpartition("/")
    if "openaipublic" in address:
        return folder.rpartition("/")[2]
    return Path(name).stem.rpartition("-")[2] if "mlfoundations" in address else ""


def _normalization(model: str, tag: dict[str, Any]) -> tuple[Any, Any]:
    """Mean and deviation of published weights; for those in a file, of all published weights if they agree."""
    tags = (
        [tag]
        if tag
        else [open_clip.get_pretrained_cfg(model, one) for one in open_clip.list_pretrained_tags_by_model(model)]
    )
    found = {(tuple(one["mean"]), tuple(one["std"])) for one in tags if "mean" in one and "std" in one}
    return found.pop() if len(found) == 1 else (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
