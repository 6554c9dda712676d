"""Pickles for NVIDIA's programs: opened as these programs do it, and by us."""

import ast
import pickle
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.evaluated_runs import make_run
from zeroshift.cli.main import main
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.files import export_generator, load_generator
from zeroshift.generators.checkpoints.nvidia_source import stylegan2_source, stylegan3_source
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.generators.stylegan.stylegan3 import StyleGAN3
from zeroshift.io.outputs import is_ours

KINDS = ("stylegan2", "conditional", "stylegan3-t", "stylegan3-r")


class Attributes(dict[str, Any]):
    """A dictionary with attributes, as dnnlib.EasyDict."""

    __getattr__ = dict.__getitem__


@pytest.fixture
def nvidia(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module `torch_utils.persistence` that opens networks as that of NVIDIA's programs does."""
    persistence = types.ModuleType("torch_utils.persistence")
    modules: dict[str, types.ModuleType] = {}

    def reconstruct(meta: dict[str, Any]) -> Any:
        assert (meta["type"], meta["version"]) == ("class", 6)
        source = meta["module_src"]
        if source not in modules:
            module = types.ModuleType(f"_imported_module_{len(modules)}")
            monkeypatch.setitem(sys.modules, module.__name__, module)
            exec(source, module.__dict__)
            modules[source] = module
        original = modules[source].__dict__[meta["class_name"]]
        decorated = type(meta["class_name"], (original,), {"init_kwargs": property(lambda self: self._init_kwargs)})
        made = decorated.__new__(decorated)
        made.__setstate__(Attributes(meta["state"]))
        return made

    persistence._reconstruct_persistent_obj = reconstruct  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", persistence)


def make(kind: str) -> Generator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind.startswith("stylegan3"):
            radial = kind.endswith("r")
            options = {"radial": radial, "conv_kernel": 1 if radial else 3}
            made: Generator = StyleGAN3(32, 8, 12, channel_base=256, channel_max=16, **options)  # type: ignore[arg-type]
        else:
            classes, features = (3, {"mapping_features": 10, "embed_features": 6}) if kind == "conditional" else (0, {})
            made = StyleGAN2(16, 8, 12, classes, 2, channels={4: 8, 8: 6, 16: 4}, conv_clamp=256, **features)
            for conv in made.synthesis.convs():
                conv.noise_strength.data.fill_(0.5)
    made.mapping.w_avg.copy_(made.average_w())
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("kind", KINDS)
def test_the_networks_draw_the_same_images_in_nvidias_programs(kind: str, tmp_path: Path, nvidia: None) -> None:
    generator = make(kind)
    export_generator(generator, tmp_path / "g.pkl", format="nvidia-pkl")
    with open(tmp_path / "g.pkl", "rb") as file:
        data = pickle.load(file)
    assert all(isinstance(data[name], torch.nn.Module) for name in ("G", "D", "G_ema"))
    assert data["training_set_kwargs"] is data["augment_pipe"] is None
    network, z = data["G_ema"], generator.sample_latents(0, range(3))
    labels = torch.arange(3) if kind == "conditional" else None
    c = torch.eye(3) if kind == "conditional" else torch.zeros(3, 0)
    assert (network.z_dim, network.c_dim, network.w_dim) == (8, c.shape[1], 12)
    assert (network.img_resolution, network.img_channels, network.num_ws) == (generator.resolution, 3, generator.num_ws)
    for psi, cutoff in ((1, None), (0.6, None), (0.6, 2)):
        expected = generator(z, labels, truncation_psi=psi, truncation_cutoff=cutoff)
        drawn = network(z, c, truncation_psi=psi, truncation_cutoff=cutoff, noise_mode="const")
        torch.testing.assert_close(drawn, expected, atol=1e-5, rtol=1e-5)
    assert hasattr(network.synthesis, "input") == kind.startswith("stylegan3"), "gen_images.py of stylegan3 asks so"
    ws = network.mapping(z, c, truncation_psi=0.6)
    torch.testing.assert_close(network.synthesis(ws, noise_mode="none"), generator.synthesize(ws, noise_mode="none"))
    noisy = network.synthesis(ws, noise_mode="random")
    assert torch.equal(noisy, network.synthesis(ws, noise_mode="const")) == kind.startswith("stylegan3")
    again = type(network)(**network.init_kwargs)  # as for other precisions
    names = {name for name, _ in (*network.named_parameters(), *network.named_buffers())}
    assert {name for name, _ in (*again.named_parameters(), *again.named_buffers())} == names
    anchor = "synthesis.input.freqs" if kind.startswith("stylegan3") else "synthesis.b4.const"
    assert {anchor, "mapping.w_avg", "mapping.fc0.weight"} <= names


@pytest.mark.parametrize("kind", KINDS)
def test_we_read_what_we_write(kind: str, tmp_path: Path) -> None:
    generator = make(kind)
    export_generator(generator, tmp_path / "g.pkl", format="nvidia-pkl")
    loaded = load_generator(tmp_path / "g.pkl")
    assert loaded.config == generator.config
    for name, value in generator.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    assert is_ours(tmp_path / "g.pkl")


@pytest.mark.parametrize("source", [stylegan2_source(), stylegan3_source()])
def test_the_source_runs_alone_and_with_old_python(source: str) -> None:
    tree = ast.parse(source, feature_version=(3, 7))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [])
        + ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [])
    }
    assert imported == {"__future__", "math", "dataclasses", "numpy", "torch"}
    assert "torch.autocast" not in source
    assert "strict=" not in source
    assert "zeroshift (MIT license)" in source


def test_the_command_writes_the_file_and_replaces_it(tmp_path: Path, tiny_generator: Path) -> None:
    run = make_run(tiny_generator, tmp_path / "run").path
    for _ in range(2):
        assert main(["export", str(run), "--format", "nvidia-pkl"]) == 0
    assert load_generator(run / "export.pkl").resolution == 16
