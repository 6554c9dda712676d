"""Any value in JSON, any text of a label or template: an error with a sentence, or a usable result."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from zeroshift.clip.encoder import Encoder
from zeroshift.clip.loading import load_encoder, load_encoder_file
from zeroshift.config.settings import AdaptConfig
from zeroshift.errors import ZeroshiftError
from zeroshift.io.foreign import parse_json
from zeroshift.io.records import read_records
from zeroshift.methods.config_file import from_json, to_json
from zeroshift.methods.configure import resolve

pytestmark = pytest.mark.slow

STEADY = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
SETTINGS = [
    "target", "source", "generator", "family", "encoders", "encoder_weights", "method", "seed", "device", "precision",
    "truncation_psi", "preview_every", "class_index", "adapt", "sampling", "prompts", "diffusion", "options",
]  # fmt: skip


def message(action: Callable[[], Any]) -> str:
    """The message of the error that an action raises; empty: none."""
    try:
        action()
    except ZeroshiftError as error:
        return str(error)
    return ""


@STEADY
@given(st.dictionaries(st.sampled_from(SETTINGS), VALUES, max_size=4), st.dictionaries(st.text(), VALUES, max_size=1))
def test_settings_with_any_values(changes: dict[str, Any], unknown: dict[str, Any]) -> None:
    text = json.dumps({**json.loads(to_json(AdaptConfig(target="zombie"))), **changes, **unknown})
    assert len(message(lambda: to_json(resolve(from_json(text))))) < 600


@STEADY
@given(VALUES)
def test_settings_of_any_kind(value: Any) -> None:
    assert message(lambda: from_json(json.dumps(value)))


@STEADY
@given(st.binary(max_size=200))
def test_json_of_any_bytes(content: bytes) -> None:
    sentence = message(lambda: parse_json(content, "the file"))
    assert not sentence or "the file" in sentence


@STEADY
@given(st.lists(st.binary(max_size=30) | VALUES.map(lambda value: json.dumps(value).encode()), max_size=5))
@pytest.mark.filterwarnings("ignore:.*log.jsonl")
def test_records_of_any_bytes(tmp_path: Path, lines: list[bytes]) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b"\n".join([*lines, b'{"stage": "adapt", "step": 0}', b""]))
    records: list[Any] = []
    sentence = message(lambda: records.extend(read_records(path)))
    assert path.name in sentence or all(isinstance(record, dict) for record in records)


@pytest.fixture(scope="module")
def encoder(tiny_encoder: Path) -> Encoder:
    return load_encoder(str(tiny_encoder))


@STEADY
@given(st.text(max_size=60))
@pytest.mark.filterwarnings("ignore:The encoder was not trained")
def test_labels_of_any_text(encoder: Encoder, label: str) -> None:
    features: list[torch.Tensor] = []

    def encode() -> None:
        encoder.warn_unknown(label)
        features.append(encoder.label_feature(label))

    sentence = message(encode)
    assert len(sentence) < 600
    assert sentence or features[0].isfinite().all()


@settings(STEADY, max_examples=40)
@given(st.lists(st.text(alphabet="{}a :!.0[]x", max_size=12), max_size=3) | VALUES)
def test_templates_of_any_text(tiny_encoder: Path, tmp_path: Path, templates: Any) -> None:
    path, encoders = tmp_path / "encoder.safetensors", []
    with safe_open(tiny_encoder, "pt") as file:
        metadata, state = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    save_file(state, path, {**metadata, "templates": json.dumps(templates)})
    sentence = message(lambda: encoders.append(load_encoder_file(path)))
    assert path.name in sentence or encoders
    for encoder in encoders:
        assert all(text.count("{}") == 1 for text in encoder.templates)
        assert encoder.label_feature("zombie").isfinite().all()
