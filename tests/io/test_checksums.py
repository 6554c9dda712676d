from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from zeroshift.errors import DamagedFileError, ZeroshiftError
from zeroshift.io.checksums import digest, load_state, load_tensors, save_state, save_tensors
from zeroshift.io.leftovers import remove_leftovers

STATE: dict[str, Any] = {"weights": {"w": torch.arange(40.0), "n": torch.tensor(3)}, "step": 3, "betas": (0.0, 0.9)}
TENSORS = {
    "w": torch.arange(6.0).reshape(2, 3).T, "half": torch.ones(2, dtype=torch.bfloat16), "flag": torch.tensor(True),
    "empty": torch.zeros(0),
}  # fmt: skip


def flips(file: Path, every: int) -> Iterator[int]:
    """Bits of a file, which is changed in each of them in turn; restores the file at the end."""
    content = file.read_bytes()
    for bit in range(0, 8 * len(content), every):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        yield bit
    file.write_bytes(content)


@pytest.mark.slow
def test_a_flipped_bit_anywhere_in_a_state_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "last.pt"
    save_state(file, STATE)
    for bit in flips(file, every=11):
        with pytest.raises(DamagedFileError, match=r"last\.pt is damaged"):
            print(bit, load_state(file))
    loaded = load_state(file)
    assert torch.equal(loaded["weights"]["w"], STATE["weights"]["w"])
    assert (loaded["step"], loaded["betas"]) == (3, (0.0, 0.9))


def test_other_programs_read_a_state_with_a_checksum(tmp_path: Path) -> None:
    save_state(tmp_path / "last.pt", STATE)
    for mmap in (False, True):
        assert torch.load(tmp_path / "last.pt", weights_only=True, mmap=mmap)["step"] == 3


def test_states_of_earlier_versions_are_read_and_verified_by_the_archive(tmp_path: Path) -> None:
    file = tmp_path / "last.pt"
    torch.save(STATE, file)
    assert load_state(file)["step"] == 3
    content = bytearray(file.read_bytes())
    content[content.index(torch.arange(40.0).numpy().tobytes()) + 30] ^= 4
    file.write_bytes(content)
    with pytest.raises(DamagedFileError):
        load_state(file)


@pytest.mark.parametrize("cut", [0, 1, 100])
def test_incomplete_files_are_damaged(tmp_path: Path, cut: int) -> None:
    save_state(tmp_path / "last.pt", STATE)
    save_tensors(tmp_path / "w.safetensors", TENSORS)
    for name, load in (("last.pt", load_state), ("w.safetensors", load_tensors)):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) - cut] if cut else b"")
        with pytest.raises(DamagedFileError):
            load(tmp_path / name)


def test_the_replaced_state_is_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_state(tmp_path / "last.pt", {"step": step}, previous=tmp_path / "previous.pt")
    assert [load_state(tmp_path / f"{name}.pt")["step"] for name in ("last", "previous")] == [3, 2]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_flipped_bit_anywhere_in_a_tensor_file_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_tensors(file, TENSORS, {"zeroshift": '{"config": 1}'})
    for bit in flips(file, every=11):
        with pytest.raises(DamagedFileError):
            print(bit, load_tensors(file))
    tensors, metadata = load_tensors(file)
    assert metadata == {"zeroshift": '{"config": 1}'}
    assert all(torch.equal(tensors[name], value) for name, value in TENSORS.items())


def test_equal_content_makes_equal_files(tmp_path: Path) -> None:
    metadata = {name: f'"{name}" \\ \n é' for name in "zyxabc"}
    for name in ("1", "2"):
        save_tensors(tmp_path / name, TENSORS, metadata)
        metadata = dict(reversed(metadata.items()))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert (tmp_path / "1").read_bytes()[8:].startswith(b'{"__metadata__":{"a":')
    assert load_tensors(tmp_path / "1")[1] == metadata


def test_tensor_files_of_earlier_versions_are_read(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "w.safetensors")
    assert load_tensors(tmp_path / "w.safetensors")[1] == {}


def test_tensors_that_share_memory_are_written(tmp_path: Path) -> None:
    weight = torch.ones(3)
    save_tensors(tmp_path / "w.safetensors", {"a": weight, "b": weight})
    assert set(load_tensors(tmp_path / "w.safetensors")[0]) == {"a", "b"}


def test_missing_files_have_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ZeroshiftError, match="There is no file"):
        load_tensors(tmp_path / "w.safetensors")


def test_the_digest_covers_names_types_shapes_values_and_metadata() -> None:
    one = torch.arange(6)
    variants = [
        {"a": one}, {"b": one}, {"a": one.reshape(2, 3)}, {"a": one.int()}, {"a": one + 1}, {"a": one, "b": one},
    ]  # fmt: skip
    digests = {digest(variant) for variant in variants} | {digest({"a": one}, {"k": "v"})}
    assert len(digests) == len(variants) + 1
    assert digest({"a": one, "b": one}) == digest({"b": one.clone(), "a": one})


def test_the_librarys_own_temporary_file_is_removed_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.safetensors"

    def kill(tensors: dict[str, torch.Tensor], file: Path, metadata: dict[str, str]) -> None:
        (file.parent / ".tmpAbCdEf").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("zeroshift.io.checksums.save_file", kill)
        patch.setattr("shutil.rmtree", lambda *_, **__: None)  # a killed process removes nothing
        with pytest.raises(KeyboardInterrupt):
            save_tensors(path, {"weight": torch.ones(3)})
    left = [file.name for file in tmp_path.iterdir()]
    assert len(left) == 1
    assert left[0].startswith(".zeroshift-")
    monkeypatch.setattr("zeroshift.io.leftovers.runs_since", lambda process, changed: False)
    remove_leftovers(tmp_path)
    save_tensors(path, {"weight": torch.ones(3)})
    assert [file.name for file in tmp_path.iterdir()] == ["weights.safetensors"]
