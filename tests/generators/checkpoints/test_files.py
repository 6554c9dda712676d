import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from zeroshift.errors import DamagedFileError, NotFiniteError
from zeroshift.generators.checkpoints.files import load_generator, save_generator


def test_a_flipped_bit_in_a_generator_is_noticed(tiny_generator: Path, tmp_path: Path) -> None:
    generator, file = load_generator(tiny_generator), tmp_path / "g.safetensors"
    save_generator(generator, file, {"target": "zombie"})
    content = file.read_bytes()
    for place in (-1, -1000, len(content) // 2, content.index(b"zombie")):
        damaged = bytearray(content)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(DamagedFileError, match=r"g\.safetensors is damaged.*checksum"):
            load_generator(file)


def test_files_without_a_checksum_are_read(tiny_generator: Path, tmp_path: Path) -> None:
    generator, file = load_generator(tiny_generator), tmp_path / "g.safetensors"
    described = {"architecture": generator.architecture, "config": generator.config}
    save_file(generator.state_dict(), file, metadata={"zeroshift": json.dumps(described)})
    assert torch.equal(load_generator(file).mapping.w_avg, generator.mapping.w_avg)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("tensor", ["mapping.w_avg", "synthesis.b8.conv0.weight"])
def test_weights_that_are_not_finite_are_refused_by_name(
    tiny_generator: Path, tmp_path: Path, tensor: str, value: float
) -> None:
    generator = load_generator(tiny_generator)
    generator.state_dict()[tensor].flatten()[0] = value
    save_generator(generator, tmp_path / "g.safetensors")
    with pytest.raises(NotFiniteError, match=rf"g\.safetensors has weights that are not finite numbers, in {tensor}"):
        load_generator(tmp_path / "g.safetensors")
