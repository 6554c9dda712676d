"""NVIDIA's .pkl files: written here as by the published programs, read back without executing anything."""

import io
import os
import pickle
import random
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.conformance import fill
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import load_generator
from zeroshift.generators.checkpoints.stylegan_files import load_pkl, read_pkl
from zeroshift.generators.stylegan.stylegan3 import StyleGAN3

pytestmark = pytest.mark.slow

CASES = Path(fill.__file__).parent
BUFFERS = (
    "freqs",
    "phases",
    "transform",
    "magnitude_ema",
    "w_avg",
    "noise_const",
    "resample_filter",
    "up_filter",
    "down_filter",
)
MODULES = ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")


class Persistent(nn.Module):
    """A module that pickles itself like `torch_utils.persistence.persistent_class`: source code and __dict__."""

    source = ""

    def __init__(self, class_name, **kwargs):
        super().__init__()
        self._class_name, self._init_args = class_name, ()
        self._init_kwargs = sys.modules["dnnlib.util"].EasyDict(kwargs)

    def __reduce__(self):
        meta = {"type": "class", "version": 6, "module_src": self.source, "class_name": self._class_name}
        reconstruct = sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj
        return (reconstruct, ({**meta, "state": self.__dict__},), None)


@pytest.fixture
def program(monkeypatch, tmp_path):
    """The published modules, present while a file is written. Executing the source code in a file creates `mark`."""
    mark = tmp_path / "executed"

    def _reconstruct_persistent_obj(meta):
        exec(meta["module_src"], {})

    class EasyDict(dict):
        def __getattr__(self, name):
            try:
                return self[name]
            except KeyError:
                raise AttributeError(name) from None

        def __setattr__(self, name, value):
            self[name] = value

    modules = {name: types.ModuleType(name) for name in MODULES}
    for module, thing in (("torch_utils.persistence", _reconstruct_persistent_obj), ("dnnlib.util", EasyDict)):
        thing.__module__, thing.__qualname__ = module, thing.__name__
        setattr(modules[module], thing.__name__, thing)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(Persistent, "source", f"open({str(mark)!r}, 'w').close()\n")
    return types.SimpleNamespace(EasyDict=EasyDict, mark=mark, path=tmp_path / "network.pkl", patch=monkeypatch)


def write(program, content, protocol=None):
    """Writes the file; the published modules are removed afterward, so that reading cannot depend on them."""
    program.path.write_bytes(pickle.dumps(content, protocol))
    for name in MODULES:
        program.patch.delitem(sys.modules, name)
    return program.path


def network(weights, init_kwargs, attributes=None):
    """The module tree of these parameter names. `attributes`: name of a module -> its other attributes."""
    root = Persistent("Generator", **init_kwargs)
    for name, value in weights.items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, Persistent("Layer"))
            module = module._modules[part]
        tensor = torch.as_tensor(value)
        if leaf in BUFFERS:
            module.register_buffer(leaf, tensor)
        else:
            module.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))
    for name, values in (attributes or {}).items():
        module = root.get_submodule(name)
        for key, value in values.items():
            setattr(module, key, value)
    return root.eval()


def snapshot(program, generator):
    """The contents of a snapshot of the published training loops."""
    discriminator = Persistent("Discriminator", c_dim=0)
    discriminator.register_parameter("weight", nn.Parameter(torch.randn(3, 2)))
    augment = Persistent("AugmentPipe", xflip=1)
    augment.register_buffer("Hz_geom", torch.randn(12))
    data = program.EasyDict(class_name="training.dataset.ImageFolderDataset", path="/data", resolution=32, xflip=True)
    parts = {"G": generator, "D": discriminator, "G_ema": generator, "augment_pipe": augment}
    return {**parts, "training_set_kwargs": data}


def recorded(name):
    meta, arrays = fill.load(CASES / f"{name}.npz")
    weights = fill.fill(meta["shapes"]["generator"], meta["seed"]) | {"mapping.w_avg": arrays["w_avg"]}
    return weights, meta["init_kwargs"], {key: torch.from_numpy(value) for key, value in arrays.items()}


def stylegan2_tree(weights, init_kwargs, conv_clamp=None, architecture="skip"):
    filters = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 64
    layers = {name.rsplit(".", 1)[0] for name in weights if name.endswith((".noise_const", ".torgb.weight"))}
    attributes = {}
    for name in layers:
        attributes[name] = {"conv_clamp": conv_clamp, "weight_gain": 1 / np.sqrt(64), "padding": 1}
        if "torgb" not in name:
            attributes[name] |= {"activation": "lrelu", "act_gain": np.sqrt(2), "use_noise": True, "up": 1}
            weights = weights | {f"{name}.resample_filter": filters}
    for name in {name.rsplit(".", 1)[0] for name in layers}:
        attributes[name] = {"architecture": architecture, "use_fp16": False}
        weights = weights | {f"{name}.resample_filter": filters}
    for name in {name.rsplit(".", 1)[0] for name in weights if ".affine." in name}:
        attributes[name] = {"activation": "linear", "bias_gain": 1.0}
    return network(weights, init_kwargs, attributes)


def stylegan3_tree(weights, init_kwargs):
    config = {key: init_kwargs[key] for key in ("channel_base", "channel_max", "z_dim", "w_dim")}
    radial = init_kwargs.get("use_radial_filters", False)
    ours = StyleGAN3(32, conv_kernel=init_kwargs.get("conv_kernel", 3), radial=radial, **config)
    buffers = dict(ours.named_buffers())
    weights = {name: value for name, value in buffers.items() if "_ema" in name or "_filter" in name} | weights
    root = network(weights | {"synthesis.input.transform": torch.eye(3)}, init_kwargs)
    for name, child in root.get_submodule("synthesis").named_children():
        child.size = np.broadcast_to(np.asarray(36), [2])
        child.bandwidth = np.float64(2.0)
        if name.startswith("L14"):
            child.register_buffer("up_filter", None)
    return root


def assert_images(generator, arrays):
    labels = arrays.get("label")
    with torch.no_grad():
        for truncation, kind in ((1.0, "image"), (0.7, "image_truncated_0p7")):
            image = generator(arrays["z"], labels, truncation_psi=truncation)
            torch.testing.assert_close(image, arrays[kind], rtol=0, atol=1e-4 * arrays[kind].abs().max().item())


@pytest.mark.parametrize("name", ["stylegan2_nvidia_32", "stylegan2_nvidia_32_conditional"])
def test_stylegan2_images(program, name):
    weights, init_kwargs, arrays = recorded(name)
    path = write(program, snapshot(program, stylegan2_tree(weights, init_kwargs)))
    assert_images(load_generator(path), arrays)
    assert not program.mark.exists()
    assert not set(MODULES) & set(sys.modules)


@pytest.mark.parametrize(("config", "protocol"), [("t", None), ("r", None), ("t", 2), ("t", 3), ("t", 5)])
def test_stylegan3_images(program, config, protocol):
    weights, init_kwargs, arrays = recorded(f"stylegan3_{config}_32")
    path = write(program, snapshot(program, stylegan3_tree(weights, init_kwargs)), protocol)
    assert_images(load_generator(path), arrays)
    assert not program.mark.exists()


def test_published_reading_would_execute(program):
    """Control: the mark appears if the embedded source is executed."""
    pickle.loads(pickle.dumps(Persistent("Generator")))
    assert program.mark.exists()


def tiny(**settings):
    weights, init_kwargs, _ = recorded("stylegan2_nvidia_32")
    del init_kwargs["synthesis_kwargs"]
    return stylegan2_tree(weights, init_kwargs | settings.pop("init_kwargs", {}), **settings)


def test_clamp_is_read_from_the_layers(program):
    """stylegan3's program clamps a StyleGAN2 at 256 by default, so the arguments are not sufficient."""
    flat = {"channel_base": 2048, "channel_max": 64, "fused_modconv_default": "inference_only", "num_fp16_res": 4}
    path = write(program, {"G_ema": tiny(conv_clamp=256, init_kwargs=flat)})
    assert load_pkl(path).config["conv_clamp"] == 256
    assert read_pkl(path)[1]["synthesis_kwargs"] == flat | {
        "architecture": "skip",
        "activation": "lrelu",
        "conv_clamp": 256,
    }


@pytest.mark.parametrize("architecture", ["resnet", "orig"])
def test_other_architectures_are_refused(program, architecture):
    path = write(program, {"G_ema": tiny(architecture=architecture)})
    with pytest.raises(ZeroshiftError, match=f"architecture = '{architecture}'"):
        load_pkl(path)


def test_layers_that_differ_are_refused(program):
    tree = tiny()
    tree.get_submodule("synthesis.b8.conv0").conv_clamp = 1
    with pytest.raises(ZeroshiftError, match="differ in conv_clamp"):
        load_pkl(write(program, {"G_ema": tree}))


def test_falls_back_to_g(program):
    path = write(program, {"G": tiny(), "D": None, "G_ema": None})
    with pytest.warns(UserWarning, match="no G_ema"):
        assert load_pkl(path).resolution == 32


@pytest.mark.parametrize("content", [{"G": 3}, [1, 2], "text", {}, {"G_ema": {"weights": 1}}])
def test_no_generator(program, content):
    with pytest.raises(ZeroshiftError, match="holds no StyleGAN2 or StyleGAN3 generator"):
        load_pkl(write(program, content))


def test_other_programs(program):
    """A generator with the right structure but other layers, as in derived programs."""
    tree = network({"mapping.fc0.weight": torch.zeros(2, 2), "synthesis.head.weight": torch.zeros(2)}, {})
    with pytest.raises(ZeroshiftError, match=r"holds no StyleGAN2 or StyleGAN3 generator, but G_ema \(a Generator\)"):
        load_pkl(write(program, {"G_ema": tree}))


@pytest.mark.parametrize("settings", [{"mapping_kwargs": 5}, {"img_resolution": "big"}, {"z_dim": -1}, {"head": 1}])
def test_foreign_settings(program, settings):
    tree = stylegan3_tree(*recorded("stylegan3_t_32")[:2])
    tree._init_kwargs.update(settings)
    with pytest.raises(ZeroshiftError, match="cannot be used"):
        load_pkl(write(program, {"G_ema": tree}))


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def legacy_torch_file(content):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


ATTACKS = {
    "os.system": lambda mark: Call(os.system, f"touch {mark}"),
    "eval": lambda mark: Call(eval, f"open({str(mark)!r}, 'w')"),
    "exec": lambda mark: Call(exec, f"open({str(mark)!r}, 'w')"),
    "open": lambda mark: Call(open, str(mark), "w"),
    "import": lambda mark: Call(__import__, "os"),
    "hub": lambda mark: Call(torch.hub.load, "somebody/repository", "model"),
    "in a storage": lambda mark: Call(torch.storage._load_from_bytes, pickle.dumps(ATTACKS["os.system"](mark))),
    "in a torch file": lambda mark: Call(torch.storage._load_from_bytes, legacy_torch_file([ATTACKS["eval"](mark)])),
}


@pytest.mark.parametrize("place", ["top", "beside", "attribute", "settings", "parameters"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_malicious_files(program, attack, place):
    evil = ATTACKS[attack](program.mark)
    tree = network({"mapping.fc0.weight": torch.zeros(2, 2), "synthesis.b4.const": torch.zeros(2, 4, 4)}, {})
    layer = tree.get_submodule("mapping.fc0")
    content = {"G_ema": tree}
    if place == "top":
        content = evil
    elif place == "beside":
        content["training_set_kwargs"] = evil
    elif place == "attribute":
        layer.activation = evil
    elif place == "settings":
        tree._init_kwargs["mapping_kwargs"] = {"num_layers": evil}
    else:
        layer._parameters["bias"] = evil
    path = write(program, content)
    with pytest.raises(ZeroshiftError, match="executed") as refusal:
        load_pkl(path)
    assert str(path) in str(refusal.value)
    assert not program.mark.exists()


def test_refusal_names_the_class(tmp_path):
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps({"G_ema": Call(pytest.importorskip, "os")}))
    with pytest.raises(ZeroshiftError, match=r"a call of \S+\.importorskip; .* no code was executed"):
        load_pkl(path)
    path.write_bytes(pickle.dumps({"G_ema": Path("/")}))
    with pytest.raises(ZeroshiftError, match=r"holds no StyleGAN2 .*, but G_ema \(a pathlib\S*Path\)"):
        load_pkl(path)


@pytest.mark.parametrize(
    "instructions",
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n}X\x05\x00\x00\x00valueK\x01sb.",  # state for a function
        b"ctorch._utils\n_rebuild_tensor_v2\nN}X\x05\x00\x00\x00valueK\x01s\x86b.",  # slots of a function
        b"ccollections\nOrderedDict\nN}X\x05\x00\x00\x00itemsK\x01s\x86b.",  # attributes of a class
        b"cdnnlib.util\nEasyDict\nN}X\x05\x00\x00\x00itemsK\x01s\x86b.",
        b"\x82\x01.",  # extension registry
        b"X\x01\x00\x00\x000Q.",  # persistent identifier
        b"\x8e" + struct.pack("<Q", 2**62) + b"12.",  # an absurd length
    ],
)
def test_hostile_instructions(tmp_path, instructions):
    path = tmp_path / "network.pkl"
    path.write_bytes(b"\x80\x04" + instructions)
    with pytest.raises(ZeroshiftError, match=r"damaged|data outside of the file"):
        load_pkl(path)


@pytest.mark.parametrize("view", [(4, (2, 3), (3, 1)), (0, (2, 3), (4, 1)), (-1, (2,), (1,)), (0, (2,), (-1,))])
def test_tensors_stay_in_their_storage(program, view):
    tree = tiny()
    storage = Call(torch.storage._load_from_bytes, legacy_torch_file(torch.arange(6.0)._typed_storage()))
    rebuild = Call(torch._utils._rebuild_tensor_v2, storage, *view, False, None)
    tree.get_submodule("mapping.fc0")._parameters["bias"] = rebuild
    with pytest.raises(ZeroshiftError, match=r"mapping\.fc0\.bias: a tensor .*(beyond its storage|negative)"):
        load_pkl(write(program, {"G_ema": tree}))


def test_module_graphs_are_trees(program):
    """Each level contains the next one twice: 2 ** 60 modules in total."""
    tree = network({"mapping.weight": torch.zeros(1), "synthesis.weight": torch.zeros(1)}, {})
    module = tree.get_submodule("synthesis")
    for _ in range(60):
        child = Persistent("Layer")
        module.add_module("a", child)
        module.add_module("b", child)
        module = child
    with pytest.raises(ZeroshiftError, match="more than 100,000 values or 40 levels"):
        load_pkl(write(program, {"G_ema": tree}))


@pytest.mark.parametrize("module", ["dnnlib.tflib.network", "tfutil"])
def test_tensorflow_files(tmp_path, module):
    path = tmp_path / "stylegan2-ffhq-config-f.pkl"
    path.write_bytes(b"\x80\x03c" + module.encode() + b"\nNetwork\n)\x81}b.")
    with pytest.raises(ZeroshiftError, match=r"TensorFlow.*legacy\.py"):
        load_pkl(path)


def test_missing_and_empty(tmp_path):
    with pytest.raises(ZeroshiftError, match="cannot be read: No such file"):
        load_pkl(tmp_path / "none.pkl")
    with pytest.raises(ZeroshiftError, match="cannot be read: Is a directory"):
        load_pkl(tmp_path)
    (tmp_path / "empty.pkl").touch()
    with pytest.raises(ZeroshiftError, match="is empty"):
        load_pkl(tmp_path / "empty.pkl")


@pytest.mark.parametrize(
    "content", [b"<html><body>Not found</body></html>", b"\x80\x04", b"\x00" * 64, b"PK\x03\x04zip"]
)
def test_no_pickle(tmp_path, content):
    (tmp_path / "network.pkl").write_bytes(content)
    with pytest.raises(ZeroshiftError, match="damaged or not a generator file"):
        load_pkl(tmp_path / "network.pkl")


def test_damaged_files(program):
    """A truncated file or one with changed bytes gives a ZeroshiftError or a generator, never another exception."""
    path = write(program, snapshot(program, tiny()))
    content = path.read_bytes()
    for length in range(1, len(content), len(content) // 40):
        path.write_bytes(content[:length])
        with pytest.raises(ZeroshiftError, match="damaged"):
            load_pkl(path)
    draw = random.Random(0)
    refused = 0
    for _ in range(60):
        bytes_ = bytearray(content)
        for _ in range(40):
            bytes_[draw.randrange(len(bytes_))] = draw.randrange(256)
        path.write_bytes(bytes_)
        try:
            load_pkl(path)
        except ZeroshiftError:
            refused += 1
    assert refused > 0
    assert not program.mark.exists()
