"""Encoder files with hostile or damaged descriptions: a sentence before anything is built, and no connection."""

import json
import socket
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from zeroshift.clip.loading import load_encoder
from zeroshift.errors import ZeroshiftError

VISION = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}
TEXT = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
METADATA = {
    "open_clip_config": {"embed_dim": 8, "vision_cfg": VISION, "text_cfg": TEXT},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "templates": ["a photo of a {}"],
    "known_words": ["dog"],
    "known_labels": ["dog"],
}


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = open_clip.CLIP(8, VISION, TEXT)
    return {name: value.half().contiguous() for name, value in model.state_dict().items()}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    used: list[str] = []

    def connect(*_: Any, **__: Any) -> None:
        used.append("a connection")
        raise OSError("no route")

    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, connect)
    monkeypatch.setattr(socket.socket, "connect", connect)
    return used


def changed(place: str, value: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = deepcopy(METADATA)
    *parts, last = place.split(".")
    inner = metadata
    for part in parts:
        inner = inner[part]
    inner[last] = value
    return metadata


def write(path: Path, metadata: dict[str, Any], state: dict[str, torch.Tensor]) -> str:
    save_file(state, path, {name: json.dumps(value) for name, value in metadata.items()})
    return str(path)


def test_a_description_with_all_defaults_written_out_is_read(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    metadata = changed("open_clip_config.text_cfg", {**TEXT, "hf_model_name": None, "hf_proj_type": "mlp"})
    metadata["open_clip_config"]["vision_cfg"] = {**VISION, "timm_model_name": "", "timm_pool": "avg"}
    encoder = load_encoder(write(tmp_path / "e.safetensors", metadata, state))
    assert encoder.known_words == {"dog"}
    assert torch.equal(encoder.model.text_projection.half(), state["text_projection"])


CONFIG = "open_clip_config"


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        (f"{CONFIG}.vision_cfg.layers", 10**9, r"vision_cfg\.layers.* is 1000000000"),
        (f"{CONFIG}.vision_cfg.layers", [3, 4], r"vision_cfg\.layers"),
        (f"{CONFIG}.vision_cfg.width", 10**30, r"vision_cfg\.width"),
        (f"{CONFIG}.vision_cfg.image_size", 10**6, r"vision_cfg\.image_size"),
        (f"{CONFIG}.vision_cfg.image_size", 0, r"vision_cfg\.image_size"),
        (f"{CONFIG}.vision_cfg.patch_size", 17, "patches must be smaller than the image"),
        (f"{CONFIG}.vision_cfg.head_width", 7, "width a multiple of head_width"),
        (f"{CONFIG}.vision_cfg.timm_model_name", "hf-hub:somebody/model", r"vision_cfg\.timm_model_name"),
        (f"{CONFIG}.vision_cfg.timm_model_name", "resnet50", r"vision_cfg\.timm_model_name"),
        (f"{CONFIG}.text_cfg.hf_model_name", "roberta-base", r"text_cfg\.hf_model_name"),
        (f"{CONFIG}.text_cfg.hf_tokenizer_name", "roberta-base", r"text_cfg\.hf_tokenizer_name"),
        (f"{CONFIG}.text_cfg.heads", 3, "width must be a multiple of heads"),
        (f"{CONFIG}.text_cfg.vocab_size", 100, r"text_cfg\.vocab_size"),
        (f"{CONFIG}.text_cfg.context_length", 10**9, r"text_cfg\.context_length"),
        (f"{CONFIG}.text_cfg.layers", True, r"text_cfg\.layers"),
        (f"{CONFIG}.text_cfg.unknown", 1, r"text_cfg\.unknown"),
        (f"{CONFIG}.cast_dtype", "float16", "cast_dtype"),
        (f"{CONFIG}.embed_dim", 16, "holds weights of another model"),
        (f"{CONFIG}.text_cfg.layers", 2, "holds weights of another model: .* missing"),
        (CONFIG, [], "valid dictionary"),
        ("image_std", [0.5, 0.5, 0], "image_std"),
        ("image_std", [0.5, 0.5, float("nan")], "image_std"),
        ("image_mean", [0.5, 0.5], "image_mean"),
        ("image_mean", "0.5", "image_mean"),
        ("templates", ["a photo of {x}"], r"must have \{\} once"),
        ("templates", ["a photo of {"], r"must have \{\} once"),
        ("templates", ["a photo"], r"must have \{\} once"),
        ("templates", ["{}" + "a" * 10**6], r"templates\[0\] is .{,100} \(string should have at most 400"),
        ("templates", ["{}"] * 5000, "templates"),
        ("templates", "a {}", "templates"),
        ("known_words", {"a": 1}, "known_words"),
        ("known_labels", [None], r"known_labels\[0\]"),
    ],
)
def test_descriptions_that_cannot_be_used_are_refused(
    place: str, value: Any, sentence: str, state: dict[str, torch.Tensor], tmp_path: Path, no_network: list[str]
) -> None:
    path = write(tmp_path / "e.safetensors", changed(place, value), state)
    start = time.monotonic()
    with pytest.raises(ZeroshiftError, match=sentence) as raised:
        load_encoder(path)
    assert time.monotonic() - start < 10
    assert len(str(raised.value)) < 600
    assert not no_network


def test_metadata_that_is_no_json_is_refused(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    for text, sentence in (("{", "not valid JSON"), ("[" * 10**5, "nested"), ("null", "valid dictionary")):
        save_file(state, tmp_path / "e.safetensors", {CONFIG: text, "image_mean": "[0]", "image_std": "[1]"})
        with pytest.raises(ZeroshiftError, match=sentence):
            load_encoder(str(tmp_path / "e.safetensors"))


def test_a_header_of_absurd_length_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e.safetensors").write_bytes((2**40).to_bytes(8, "little") + b"{}")
    with pytest.raises(ZeroshiftError, match="absurdly long"):
        load_encoder(str(tmp_path / "e.safetensors"))
