"""Limits on foreign JSON, and one clear sentence for each fault."""

import json
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from zeroshift.errors import ZeroshiftError
from zeroshift.io.foreign import matches, parse_json, read_json


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "nested more than 64 levels"),
        (b'{"a": ' * 70 + b"1" + b"}" * 70, "nested more than 64 levels"),
        (b"\xff{}", "not text in UTF-8"),
        (b"{]", "not valid JSON"),
        (b"1" * 5000, "not valid JSON"),
        (b"", "not valid JSON"),
    ],
    ids=["brackets", "objects", "encoding", "syntax", "digits", "empty"],
)
def test_each_fault_has_a_sentence(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(ZeroshiftError, match=message) as caught:
        read_json(file)
    assert str(file) in str(caught.value)


def test_the_size_is_limited_and_the_file_must_exist(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('"' + "x" * 2**20 + '"')
    assert len(read_json(file)) == 2**20
    with pytest.raises(ZeroshiftError, match="larger than 1 MiB"):
        read_json(file, limit=2**20)
    with pytest.raises(ZeroshiftError, match="There is no file"):
        read_json(tmp_path / "other.json")


def test_brackets_in_strings_are_no_depth() -> None:
    text = r'{"a": "[[[[\"[[[[", "b\\": "' + "{" * 100 + '"}'
    assert parse_json(text, "text")["b\\"] == "{" * 100


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_JSON)
def test_every_json_value_survives(value: Any) -> None:
    assert parse_json(json.dumps(value), "value") == value


def test_a_schema_names_the_field_the_value_and_the_expectation() -> None:
    class UNet(BaseModel):
        layers_per_block: Annotated[int, Field(ge=1, le=16)]
        channels: Annotated[list[Annotated[int, Field(le=4096)]], Field(max_length=8)] = []

    assert matches(UNet, {"layers_per_block": 2}, "config.json").layers_per_block == 2
    with pytest.raises(ZeroshiftError, match=r"layers_per_block is 1000000000 .*or equal to 16"):
        matches(UNet, {"layers_per_block": 10**9}, "config.json")
    with pytest.raises(ZeroshiftError, match=r"channels\[1\] is 9999"):
        matches(UNet, {"layers_per_block": 1, "channels": [1, 9999]}, "config.json")
    with pytest.raises(ZeroshiftError, match="layers_per_block is missing"):
        matches(UNet, {}, "config.json")
    with pytest.raises(ZeroshiftError, match=r"config\.json does not match"):
        matches(UNet, [1], "config.json")
    with pytest.raises(ZeroshiftError) as caught:
        matches(UNet, {"layers_per_block": "x" * 10_000}, "config.json")
    assert len(str(caught.value)) < 300
