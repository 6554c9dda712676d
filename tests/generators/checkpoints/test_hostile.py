"""Files that claim more than they hold: refused with a sentence, within seconds and without the memory they claim."""

import io
import json
import os
import pickle
import resource
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.architectures import architecture_of
from zeroshift.generators.checkpoints.catalogue import find_entry, read_header
from zeroshift.generators.checkpoints.files import load_generator, save_generator
from zeroshift.generators.checkpoints.stylegan2_layouts import stylegan2_to_rosinality
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.generators.stylegan.stylegan3 import StyleGAN3
from zeroshift.io import pickles

pytestmark = pytest.mark.slow

CASES = Path(__file__).parents[2] / "cases"


@pytest.fixture(autouse=True)
def limits():
    """Each of these files has less than 1 MiB."""
    start, peak = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.perf_counter() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 512 * 1024  # KiB


def refuses(path, words):
    architecture_of(path)
    find_entry(path)
    with pytest.raises(ZeroshiftError, match=words) as caught:
        load_generator(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 700
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pkl_hash_bomb_dict.pkl", "holds no StyleGAN2 or StyleGAN3 generator, but a dictionary"),
        ("pt_huge_expand.pt", "claims far more numbers than the file has"),
        ("claims_1e9_layers.safetensors", "mapping_layers is 1000000000"),
    ],
)
def test_cases(name, words):
    refuses(CASES / name, words)


EQUAL_HASHES = [b"\x8a\x0a" + ((2**61 - 1) * k).to_bytes(10, "little") + b"Ns" for k in range(1, 20_000)]


def bomb(levels, start=b")", pair=b"2\x86"):
    """A value that contains the one before twice, at every level."""
    return start + pair * levels


@pytest.mark.parametrize(
    "instructions",
    [
        b"}" + bomb(60) + b"K\x01s.",  # key of a dictionary
        b"(" + bomb(60) + b"K\x01d.",
        b"\x8f(" + bomb(60) + b"\x90.",  # element of a set
        b"(" + bomb(60) + b"\x91.",  # of a frozenset
        b"}" + b")" + b"(2\x91" * 30 + b"K\x01s.",
        bomb(60) + b".",
        b"}" + b"".join(EQUAL_HASHES) + b".",
        b"]" + b"(" * 50_000 + b"t" * 50_000 + b".",  # depth
        b"]" + b"\x85" * 100_000 + b".",
        b"K\x01" + b"0K\x01" * 300 + b".",
        b"\x8b" + struct.pack("<i", 2**31 - 1) + b"1.",  # an integer of 2 GiB
        b"\x8b" + struct.pack("<i", 40_000) + b"\x7f" * 40_000 + b".",
        b"r\xff\xff\xff\xff.",  # a far place in the memo
        b"Nr\xff\xff\xff\xff.",
        b"I" + b"9" * 100_000 + b"\n.",
    ],
)
@pytest.mark.parametrize("kind", ["pickle", "zip", "legacy"])
def test_instructions(instructions, kind, tmp_path):
    content = b"\x80\x04" + instructions
    path = tmp_path / "f.bin"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("f/data.pkl", content)
            archive.writestr("f/version", "3\n")
        content = path.read_bytes()
    elif kind == "legacy":
        start = io.BytesIO()
        torch.save(0, start, _use_new_zipfile_serialization=False)
        content = start.getvalue()[:-9] + content  # instead of the last pickles
    path.write_bytes(content)
    refuses(path, "damaged|holds no|without names")


def test_the_number_of_instructions_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "MAX_INSTRUCTIONS", 1000)
    monkeypatch.setattr(pickles.read_pickle, "__defaults__", (1000,))
    (tmp_path / "f.pkl").write_bytes(b"\x80\x04]" + b"N0" * 600 + b".")
    refuses(tmp_path / "f.pkl", "has more than 1,000 pickle instructions")


class Call:
    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.fixture(scope="module")
def published():
    return stylegan2_to_rosinality(StyleGAN2(4, 4, 4, mapping_layers=1, channels={4: 512}))


def saved(content, path):
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "view",
    [
        (0, (2**40,), (0,)),
        (0, (4, 4), (-1, 1)), (-1, (4, 4), (4, 1)), (0, (2**62, 2**62), (0, 0)), (2**62, (4,), (1,)),
        (0, (2**62, 0), (1, 1)), (0, (1,) * 70, (1,) * 70), (0, (4, 4), (1,)), (0, (5, 4), (4, 1)), (0.5, (4,), (1,)),
        (0, "44", (4, 1)), (0, (4, 4), (2**62, 2**62)), (0, 4, 4), (0, (2**24, 16), (0, 1)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_tensors_beyond_their_storage(view, layout, published, tmp_path):
    numbers = torch.arange(16.0)
    rebuild = Call(torch._utils._rebuild_tensor_v2, numbers._typed_storage(), *view, False, {})
    torch.save({"g_ema": {**published, "style.1.weight": rebuild}}, tmp_path / "f",
               _use_new_zipfile_serialization=layout == "zip")  # fmt: skip
    refuses(tmp_path / "f", r"style\.1\.weight")


def test_many_tensors_of_one_storage(published, tmp_path):
    """Ten thousand times the same 4 MiB."""
    numbers = torch.zeros(2**20)
    many = {f"style.{index}.weight": numbers for index in range(2, 10_000)}
    refuses(saved({"g_ema": {**published, **many}}, tmp_path / "f"), "claims? far more numbers than the file has")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"style.1.weight": torch.zeros(0, 4)}, "should be greater than|do not fit"),
        ({"style.1.weight": torch.zeros(4, 100_000)}, "z_dim is 100000"),
        ({"conv1.conv.weight": torch.zeros(1, 100_000, 1, 1, 1)}, r"channels\[4\] is 100000"),
        ({"conv1.conv.weight": torch.zeros(1, 8000, 1, 1, 1)}, "do not fit"),
        ({f"style.{10**30}.weight": torch.zeros(2)}, "do not fit"),
        ({"style.1.weight": torch.zeros(4, 4).to_sparse()}, "_rebuild_sparse_tensor, which is not supported"),
        ({"style.1.weight": torch.zeros(4, 4, dtype=torch.complex64)}, "ComplexFloat|style"),
        ({"style.1.weight": torch.zeros(4, 4, dtype=torch.int64)}, "input, style or convs are missing"),
        ({"style.1.weight": "text"}, "input, style or convs are missing"),
    ],
)
def test_shapes_that_no_generator_has(change, words, published, tmp_path):
    refuses(saved({"g_ema": {**published, **change}}, tmp_path / "f"), words)


def test_a_resolution_that_the_weights_allow(tmp_path):
    """Tiny weights for 65536 pixels: the noise images would have 32 GiB."""
    small = {name.replace("input.const", "b4.const"): value
             for name, value in StyleGAN2(8, 1, 1, mapping_layers=1, channels={4: 1, 8: 1}).state_dict().items()
             if "noise_const" not in name}  # fmt: skip
    for power in range(4, 17):
        small |= {name.replace("b8.", f"b{2**power}."): value for name, value in small.items() if ".b8." in name}
    refuses(saved({"G_ema": small}, tmp_path / "f"), "resolution is 65536")


def archive(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives(published, tmp_path):
    empty = pickle.dumps({})
    path = tmp_path / "f"
    refuses(archive(path, [("f/data.pkl", bytes(70 * 2**20))], zipfile.ZIP_DEFLATED), "far more than its size")
    bomb = [("f/data.pkl", empty), *((f"f/data/{index}", bytes(2**24)) for index in range(5))]
    refuses(archive(path, bomb, zipfile.ZIP_DEFLATED), "far more than its size")
    refuses(archive(path, [("f/data.pkl", empty), ("f/data.pkl", empty)]), "two of the same name")
    refuses(archive(path, [("f/readme.txt", "hello")]), r"a zip archive, but none of torch\.save")
    refuses(archive(path, [("f/data.pkl", empty), ("f/byteorder", "big")]), "big-endian")
    refuses(archive(path, [("f/data.pkl", empty), ("f/constants.pkl", empty)]), "TorchScript")
    refuses(archive(path, [("f/data.pkl", empty)]), "but a dictionary of 0 entries")
    torch.save({"g_ema": published}, path)
    with zipfile.ZipFile(path) as whole:
        parts = [(name, whole.read(name)) for name in whole.namelist()]
    refuses(archive(path, [one for one in parts if not one[0].endswith("/3")]), "no item named")
    refuses(archive(path, [(name, one[:-1] if "/data/" in name else one) for name, one in parts]), "damaged")
    archive(path, parts, zipfile.ZIP_DEFLATED)  # unusual, but complete
    assert load_generator(path).resolution == 4


def test_a_changed_byte_in_an_archive_is_reported(published, tmp_path):
    content = bytearray(saved({"g_ema": published, "latent_avg": torch.zeros(4)}, tmp_path / "f").read_bytes())
    place = content.find(published["conv1.conv.weight"].numpy().tobytes())
    content[place + 100_000] ^= 1
    (tmp_path / "f").write_bytes(content)
    with pytest.warns(UserWarning, match=r"the checksum of 'f/data/\d+' does not fit its data"):
        load_generator(tmp_path / "f")


@pytest.mark.parametrize("family", ["stylegan2", "stylegan3"])
@pytest.mark.parametrize(
    "change",
    [
        {"resolution": 2**30}, {"resolution": 10**30}, {"w_dim": 10**9}, {"z_dim": -1}, {"mapping_layers": 10**9},
        {"num_classes": 10**9}, {"mapping_lr_mul": float("nan")}, {"conv_clamp": float("inf")}, {"resolution": "8"},
        {"resolution": 8.5}, {"resolution": True}, {"resolution": None}, {"resolution": [8]}, {"extra": 1},
        {"w_dim": 8192},        {"mapping_layers": 60},
    ],
)  # fmt: skip
def test_descriptions(family, change, tmp_path):
    generator = (
        StyleGAN2(8, 4, 4, mapping_layers=2, channels={4: 4, 8: 4})
        if family == "stylegan2"
        else StyleGAN3(16, 4, 4, channel_base=128, channel_max=4, num_layers=4, num_critical=1, margin_size=4)
    )
    config = {**generator.config, **change}
    described = json.dumps({"architecture": family, "config": config})
    save_file(dict(generator.state_dict()), tmp_path / "f.safetensors", {"zeroshift": described})
    refuses(tmp_path / "f.safetensors", "does not match|not fit|power of two")


@pytest.mark.parametrize(
    "change",
    [
        {"num_layers": 60, "num_critical": 59}, {"channel_base": 2**21, "channel_max": 8192}, {"margin_size": 10**6},
        {"filter_size": 10**6}, {"first_cutoff": 1e-9}, {"first_cutoff": 0.25, "num_layers": 2},
        {"lrelu_upsampling": 64}, {"last_stopband_rel": 1e300}, {"conv_kernel": 2**20}, {"first_stopband": 1000.0},
        {"num_layers": 1},
    ],
)  # fmt: skip
def test_descriptions_of_stylegan3(change, tmp_path):
    generator = StyleGAN3(16, 4, 4, channel_base=128, channel_max=4, num_layers=4, num_critical=1, margin_size=4)
    described = json.dumps({"architecture": "stylegan3", "config": {**generator.config, **change}})
    save_file(dict(generator.state_dict()), tmp_path / "f.safetensors", {"zeroshift": described})
    refuses(tmp_path / "f.safetensors", "does not match|do not fit")


@pytest.mark.parametrize(
    "described",
    ["[" * 100_000, "{" * 100_000, '{"architecture": "stylegan2", "config": ' + "[" * 1000, "9" * 100_000, "null", "[]",
     '{"architecture": 3, "config": {}}', '{"architecture": "stylegan2", "config": []}'],
)  # fmt: skip
def test_foreign_json(described, tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "f.safetensors", {"zeroshift": described})
    assert read_header(tmp_path / "f.safetensors") is None
    refuses(tmp_path / "f.safetensors", "its metadata does not describe a generator")


def test_header_lengths(tmp_path):
    path = tmp_path / "f.safetensors"
    for length in (2**63, 2**40, 99 * 2**20, 3):
        path.write_bytes(length.to_bytes(8, "little") + b'{"__metadata__": {}}')
        assert read_header(path) is None
        tracemalloc.start()
        with pytest.raises(ZeroshiftError):
            load_generator(path)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
        tracemalloc.stop()


def test_no_waiting_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "f.pt")
    with pytest.raises(ZeroshiftError, match="neither a file nor a folder"):
        load_generator(tmp_path / "f.pt")


def test_saved_generators_still_load(tmp_path):
    generator = StyleGAN2(8, 4, 4, mapping_layers=2, channels={4: 4, 8: 4}, conv_clamp=256)
    save_generator(generator, tmp_path / "f.safetensors")
    assert load_generator(tmp_path / "f.safetensors").config == generator.config
