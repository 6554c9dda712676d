"""Files of programs that are StyleGAN2 or StyleGAN3 in substance, whatever they put around the weights."""

import argparse
import collections
import datetime
import decimal
import enum
import io
import pathlib
import pickle
import sys
import types
import uuid

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.checkpoints.stylegan2_layouts import (
    stylegan2_from_nvidia,
    stylegan2_from_rosinality,
    stylegan2_to_rosinality,
)
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2


@pytest.fixture(scope="module")
def published():
    """Weights of rosinality's program, with 8 channels instead of 512."""
    torch.manual_seed(0)
    weights = stylegan2_to_rosinality(StyleGAN2(16, 8, 8, mapping_layers=2, channels={4: 512, 8: 512, 16: 512}))
    return {name: value[tuple(slice(8) for _ in value.shape)].contiguous() if "noise_" not in name else value
            for name, value in weights.items()}  # fmt: skip


@pytest.fixture(scope="module")
def ours(published):
    return stylegan2_from_rosinality(published, torch.linspace(-1, 1, 8))


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(1)
    generator = StyleGAN2(8, 6, 4, num_classes=3, mapping_layers=3, channels={4: 4, 8: 5})
    generator.mapping.w_avg.normal_()
    return generator


@pytest.fixture(scope="module")
def nvidia(small):
    return {name.replace("input.const", "b4.const"): value for name, value in small.state_dict().items()}


def assert_same(actual, expected, rtol=0.0):
    assert actual.config == expected.config
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(actual.state_dict()[name], value, rtol=rtol, atol=rtol, msg=name)


def prefixed(weights, prefix):
    return {f"{prefix}{name}": value for name, value in weights.items()}


@pytest.mark.parametrize("key", ["g_ema", "G_ema", "ema", "generator_ema", "params_ema", "ema_generator", "netG_ema"])
def test_moving_averages_under_other_names(key, published, ours, tmp_path):
    trained = {name: value + 1 for name, value in published.items() if "kernel" not in name}
    average = ours.mapping.w_avg
    torch.save(
        {"g": trained, key: published, "d": {"conv.weight": torch.ones(2)}, "latent_avg": average}, tmp_path / "f"
    )
    assert_same(load_generator(tmp_path / "f"), ours)


@pytest.mark.filterwarnings("ignore:.*has no G_ema")
@pytest.mark.parametrize("key", ["state_dict", "generator", "model", "params", "G", "netG", "weights"])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "generator.", "_orig_mod.", "module._orig_mod.", "decoder.", "netG."]
)
def test_containers_and_prefixes(key, prefix, published, ours, tmp_path):
    torch.save({key: prefixed(published, prefix), "latent_avg": ours.mapping.w_avg, "epoch": 3}, tmp_path / "f")
    assert_same(load_generator(tmp_path / "f"), ours)


def test_wrappers_within_names(nvidia, small, tmp_path):
    """DDP or torch.compile around each half, as in NVIDIA's training loop."""
    wrapped = {name.replace("mapping.", "mapping.module.").replace("synthesis.", "synthesis._orig_mod."): value
               for name, value in nvidia.items()}  # fmt: skip
    torch.save({"G_ema": wrapped}, tmp_path / "f")
    assert_same(load_generator(tmp_path / "f"), small)


def test_a_lightning_checkpoint_with_both(published, ours, tmp_path):
    trained = {name: value * 2 for name, value in published.items() if "kernel" not in name}
    state = prefixed(trained, "generator.") | prefixed(published, "generator_ema.") | {"loss.weight": torch.ones(3)}
    torch.save({"state_dict": {**state, "generator_ema.latent_avg": ours.mapping.w_avg}, "epoch": 1}, tmp_path / "f")
    assert_same(load_generator(tmp_path / "f"), ours)


@pytest.mark.parametrize("legacy", [False, True])
def test_nvidia_weights_in_a_torch_file(nvidia, small, legacy, tmp_path):
    content = {"G": {name: value + 1 for name, value in nvidia.items()}, "G_ema": nvidia, "cur_nimg": 1000}
    torch.save(content, tmp_path / "f", _use_new_zipfile_serialization=not legacy)
    assert_same(load_generator(tmp_path / "f"), small)


def basicsr(name):
    """The name in BasicSR's StyleGAN2 of a weight of rosinality's."""
    name = name.replace("noises.noise_", "noises.noise")
    if name == "input.input":
        return "constant_input.weight"
    first, _, rest = name.partition(".")
    if first in ("conv1", "convs"):
        return f"style_{first}.{rest.replace('noise.weight', 'weight').replace('conv.', 'modulated_conv.', 1)}"
    if first == "style":
        return f"style_mlp.{rest}"
    return name.replace(".conv.", ".modulated_conv.") if first.startswith("to_rgb") else name


def test_basicsr(published, ours, tmp_path):
    weights = {basicsr(name): value for name, value in published.items() if not name.endswith("kernel")}
    torch.save({"params_ema": weights, "latent_avg": ours.mapping.w_avg}, tmp_path / "f.pth")
    assert_same(load_generator(tmp_path / "f.pth"), ours)


class Phase(enum.Enum):
    TRAIN = "train"


def harmless():
    stamp = datetime.datetime(2024, 5, 6, 7, 8, tzinfo=datetime.UTC)
    return {
        "iter": 12000, "lr": 0.002, "name": "ffhq", "flag": True, "none": None, "big": 2**70,
        "fid": np.float64(3.2), "count": np.int64(7), "history": np.linspace(0, 1, 50), "names": np.array(["a", "b"]),
        "objects": np.array([{}, None], dtype=object), "size": torch.Size([1, 2]), "device": torch.device("cpu"),
        "dtype": torch.float16, "args": argparse.Namespace(lr=1, out=pathlib.Path("a/b")), "started": stamp,
        "took": datetime.timedelta(hours=1), "day": datetime.date(2024, 1, 1), "path": pathlib.PurePosixPath("/x"),
        "ordered": collections.OrderedDict(a=1), "default": collections.defaultdict(list, a=[1]),
        "queue": collections.deque([1, 2]), "counter": collections.Counter("aab"), "set": {1, 2},
        "frozen": frozenset("a"),
        "id": uuid.uuid4(), "decimal": decimal.Decimal("1.5"), "complex": 1 + 2j, "range": range(3), "slice": slice(1),
        "phase": Phase.TRAIN, "random": np.random.get_state(), "torch_random": torch.get_rng_state(),
        "generator": np.random.default_rng(0), "keys": {(1, 2): 3, 4: 5}, "bytes": b"1", "class": nn.Linear,
        "simple": types.SimpleNamespace(a=1), "layer": nn.Linear(2, 2), "sparse": torch.eye(3).to_sparse(),
        "half": torch.ones(2, dtype=torch.bfloat16), "bool": torch.ones(2, dtype=torch.bool),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_harmless_values_beside_the_weights(kind, published, ours, tmp_path):
    content = {"g_ema": published, "latent_avg": ours.mapping.w_avg, **harmless()}
    if kind == "pickle":
        (tmp_path / "f").write_bytes(pickle.dumps(content))
    else:
        del content["sparse" if kind == "legacy" else "none"]  # torch cannot write the first in the old format
        torch.save(content, tmp_path / "f", _use_new_zipfile_serialization=kind == "zip")
    assert_same(load_generator(tmp_path / "f"), ours)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_all_protocols(protocol, published, ours, tmp_path):
    content = {"g_ema": published, "latent_avg": ours.mapping.w_avg}
    torch.save(content, tmp_path / "f", pickle_protocol=protocol)
    assert_same(load_generator(tmp_path / "f"), ours)
    (tmp_path / "f").write_bytes(pickle.dumps(content, protocol))
    assert_same(load_generator(tmp_path / "f"), ours)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype, published, ours, tmp_path):
    weights = {name: value.to(dtype) for name, value in published.items()}
    torch.save({"g_ema": weights, "latent_avg": ours.mapping.w_avg.to(dtype)}, tmp_path / "f")
    loaded = load_generator(tmp_path / "f")
    assert all(value.dtype == torch.float32 for value in loaded.state_dict().values())
    assert_same(loaded, ours, rtol=1e-2)


def test_numpy_weights(nvidia, small, tmp_path):
    arrays = {name: value.numpy() for name, value in nvidia.items()}
    arrays["mapping.fc0.weight"] = np.asfortranarray(arrays["mapping.fc0.weight"])
    (tmp_path / "f.pkl").write_bytes(pickle.dumps({"G_ema": arrays}, 4))
    assert_same(load_generator(tmp_path / "f.pkl"), small)


def test_views_and_parameters(nvidia, small, tmp_path):
    whole = torch.cat([value.flatten() for value in nvidia.values()])
    parts = torch.split(whole, [value.numel() for value in nvidia.values()])
    views = {name: nn.Parameter(part.view(value.shape))
             for (name, value), part in zip(nvidia.items(), parts, strict=True)}  # fmt: skip
    views["mapping.fc0.weight"] = nvidia["mapping.fc0.weight"].T.contiguous().T
    torch.save({"G_ema": views}, tmp_path / "f")
    assert_same(load_generator(tmp_path / "f"), small)


def test_extra_values_are_named(published, ours, tmp_path):
    extra = {"conv1.gain": torch.ones(1), "mean": torch.zeros(8), "style.num_batches_tracked": torch.tensor(3)}
    torch.save({"g_ema": {**published, **extra}, "latent_avg": ours.mapping.w_avg}, tmp_path / "f")
    with pytest.warns(UserWarning, match=r"Left out what a StyleGAN2 does not have: conv1\.gain, mean\."):
        assert_same(load_generator(tmp_path / "f"), ours)
    torch.save({"g_ema": {**published, "convs.0.attention.weight": torch.zeros(3, 3)}}, tmp_path / "f")
    with pytest.raises(ZeroshiftError, match=r"do not fit a StyleGAN2 generator: convs\.0\.attention\.weight"):
        load_generator(tmp_path / "f")


def test_missing_noise(published, ours, tmp_path):
    bare = {name: value for name, value in published.items() if not name.startswith("noises.")}
    torch.save({"g_ema": bare, "latent_avg": ours.mapping.w_avg}, tmp_path / "f")
    assert torch.equal(load_generator(tmp_path / "f").synthesis.b8.conv0.weight, ours.synthesis.b8.conv0.weight)


@pytest.fixture
def fork(monkeypatch):
    """Modules of a fork, importable while a file is written."""
    created = {}

    def module(name):
        parts = name.split(".")
        for count in range(1, len(parts) + 1):
            part = ".".join(parts[:count])
            if part not in created:
                created[part] = types.ModuleType(part)
                monkeypatch.setitem(sys.modules, part, created[part])
        return created[name]

    return module


def tree(cls, weights):
    root = cls()
    for name, value in weights.items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, cls())
            module = module._modules[part]
        module.register_parameter(leaf, nn.Parameter(value))
    return root


@pytest.mark.parametrize("name", ["training.networks", "training.networks_stylegan2", "src.models.stylegan2.model"])
@pytest.mark.parametrize("saved", ["pickle", "torch.save"])
def test_whole_modules(name, saved, fork, nvidia, small, tmp_path, monkeypatch):
    """Modules pickled as objects, with classes of a fork that is not installed."""
    module = fork(name)
    module.Generator = type("Generator", (nn.Module,), {"__module__": name})
    content = {"G_ema": tree(module.Generator, nvidia), "training_set_kwargs": {"path": "/data"}}
    stream = io.BytesIO()
    pickle.dump(content, stream) if saved == "pickle" else torch.save(content, stream)
    for part in [one for one in sys.modules if one == name.split(".")[0] or one.startswith(name.split(".")[0] + ".")]:
        monkeypatch.delitem(sys.modules, part)
    (tmp_path / "f").write_bytes(stream.getvalue())
    assert_same(load_generator(tmp_path / "f"), small)


@pytest.mark.parametrize("persistence", ["torch_utils.persistence", "stylegan2_ada.torch_utils.persistence"])
def test_persistent_classes_in_other_packages(persistence, fork, nvidia, small, tmp_path, monkeypatch):
    def _reconstruct_persistent_obj(meta):
        raise NotImplementedError

    _reconstruct_persistent_obj.__module__ = persistence
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    fork(persistence)._reconstruct_persistent_obj = _reconstruct_persistent_obj

    class Persistent(nn.Module):
        def __reduce__(self):
            meta = {
                "type": "class",
                "version": 6,
                "module_src": "1/0",
                "class_name": "Generator",
                "state": self.__dict__,
            }
            return _reconstruct_persistent_obj, (meta,)

    root = tree(Persistent, nvidia)
    root._init_args, root._init_kwargs = (6, 3, 4, 8, 3), {"mapping_kwargs": {"lr_multiplier": np.float32(0.5)}}
    (tmp_path / "f.pkl").write_bytes(pickle.dumps({"G_ema": root}))
    expected = stylegan2_from_nvidia(nvidia, {"mapping_kwargs": {"lr_multiplier": 0.5}})
    assert_same(load_generator(tmp_path / "f.pkl"), expected)


def test_known_forks_are_named(fork, tmp_path):
    module = fork("training.triplane")
    module.TriPlaneGenerator = type("TriPlaneGenerator", (nn.Module,), {"__module__": "training.triplane"})
    (tmp_path / "f.pkl").write_bytes(pickle.dumps({"G_ema": tree(module.TriPlaneGenerator, {"a.b": torch.ones(1)})}))
    words = (
        r"but G_ema \(a training\.triplane\.TriPlaneGenerator\)\. zeroshift reads StyleGAN2 \(skip architecture\) and"
    )
    with pytest.raises(ZeroshiftError, match=words):
        load_generator(tmp_path / "f.pkl")


def test_safetensors_of_other_programs(published, nvidia, ours, small, tmp_path):
    save_file({**published, "latent_avg": ours.mapping.w_avg}, tmp_path / "rosinality.safetensors")
    assert_same(load_generator(tmp_path / "rosinality.safetensors"), ours)
    save_file(prefixed(nvidia, "G_ema."), tmp_path / "nvidia.safetensors", {"format": "pt"})
    assert_same(load_generator(tmp_path / "nvidia.safetensors"), small)
