"""Any torch module as a generator: shapes, ranges, files, and trusted factories."""

import copy
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from zeroshift.errors import ZeroshiftError
from zeroshift.generators import trust as trusted
from zeroshift.generators.base import blend_weights
from zeroshift.generators.checkpoints.architectures import architecture_of
from zeroshift.generators.checkpoints.files import export_formats, export_generator, load_generator, save_generator
from zeroshift.generators.module import ModuleGenerator, ModuleSpec, trust, wrap_generator
from zeroshift.methods.configure import changed, preset
from zeroshift.sampling.generate import generate
from zeroshift.training.run_folder import RunFolder
from zeroshift.training.run_generators import load_source_and_target
from zeroshift.training.trainer import adapt

FACTORIES = """
import torch
from torch import nn

from zeroshift.generators.module import ModuleSpec


class DCGAN(nn.Module):
    latent_shape, resolution = (8, 1, 1), 16

    def __init__(self, channels=3):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(8, 16, 4, 1, 0, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.ConvTranspose2d(8, channels, 4, 2, 1, bias=False), nn.Tanh(),
        )

    def forward(self, z):
        return self.main(z)


def spec():
    torch.manual_seed(0)
    return ModuleSpec(DCGAN(), latent_shape=(8, 1, 1), resolution=16)


def gray():
    torch.manual_seed(0)
    return DCGAN(channels=1), (8, 1, 1), 16


def nothing():
    return 3
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZEROSHIFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trusted, "_named", set())


@pytest.fixture
def factories(tmp_path, monkeypatch):
    """The name of an importable file of factories that is not imported yet."""
    name = f"factories_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


class Images(nn.Module):
    """A linear module that makes images of any shape."""

    def __init__(self, *shape, latents=4):
        super().__init__()
        self.shape, self.linear = shape, nn.Linear(latents, torch.Size(shape).numel())

    def forward(self, z):
        return self.linear(z.flatten(1)).sigmoid().reshape(len(z), *self.shape)


@pytest.mark.parametrize("factory", ["spec", "gray", "DCGAN"])
def test_a_factory_becomes_a_generator(factories, factory):
    generator = load_generator(f"{factories}:{factory}")
    assert not generator.training
    assert generator.latent_shape == (8, 1, 1)
    assert generator.mapper_input_dim == 8
    latents = generator.sample_latents(0, range(3))
    images = generator(latents)
    assert images.shape == (3, 3, 16, 16)
    assert torch.equal(images[1:2], generator(latents[1:2])), "batch normalization uses running statistics"
    assert torch.equal(generator.mapper_input(latents), latents.flatten(1))
    assert architecture_of(f"{factories}:{factory}") == "module"


def test_layers_are_the_members_of_containers(factories):
    generator = load_generator(f"{factories}:spec")
    layers = generator.layers()
    assert list(layers) == [f"module.main.{index}" for index in (0, 1, 3, 4, 6)]
    assert all(layers[name] is generator.get_submodule(name) for name in layers)
    assert generator.layer_candidates() is None
    assert {id(p) for layer in layers.values() for p in layer.parameters()} == set(map(id, generator.parameters()))


def test_parameters_of_the_module_itself_are_a_layer():
    class Learned(Images):
        def __init__(self):
            super().__init__(3, 8, 8)
            self.gain = nn.Parameter(torch.ones(()))

    layers = wrap_generator(Learned(), (4,), 8).layers()
    assert list(layers) == ["module.parameters", "module.linear"]
    assert len(list(layers["module.parameters"].parameters())) == 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("value_range", [(0, 1), (0.0, 255.0)])
def test_other_ranges_are_mapped(channels, value_range):
    module = Images(channels, 8, 8)
    scaled = nn.Sequential(module, Scale(value_range[1]))
    images = wrap_generator(scaled, (4,), 8, value_range=value_range)(torch.randn(2, 4, generator=torch.manual_seed(0)))
    expected = module(torch.randn(2, 4, generator=torch.manual_seed(0))) * 2 - 1
    assert torch.allclose(images, expected.expand(2, 3, 8, 8), atol=1e-5)


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 8, 16), "8 x 16 pixels. They must be square"),
        ((3, 16, 16), "16 pixels, but its resolution is given as 8"),
        ((4, 8, 8), r"must be \[2, 3, 8, 8\]"),
        ((8, 8), r"images of shape \[2, 8, 8\]"),
    ],
)
def test_other_images_are_refused(shape, message):
    with pytest.raises(ZeroshiftError, match=message):
        wrap_generator(Images(*shape), (4,), 8)


@pytest.mark.parametrize(
    ("module", "latent_shape", "message"),
    [
        (Images(3, 8, 8), (5,), "does not accept latents of shape .2, 5."),
        (Images(3, 8, 8), (), "latent shape"),
        (nn.Identity(), (4,), "has no parameters"),
        (lambda z: z, (4,), "must be a torch.nn.Module"),
    ],
)
def test_other_modules_are_refused(module, latent_shape, message):
    with pytest.raises(ZeroshiftError, match=message):
        wrap_generator(module, latent_shape, 8)


def test_a_tuple_of_images_is_refused():
    class Pair(Images):
        def forward(self, z):
            return super().forward(z), z

    with pytest.raises(ZeroshiftError, match="returns a tuple"):
        wrap_generator(Pair(3, 8, 8), (4,), 8)


def test_noise_of_the_module_causes_a_warning():
    class Noisy(Images):
        def forward(self, z):
            return super().forward(z) + torch.rand(1)

    with pytest.warns(UserWarning, match="different images from the same latents"):
        wrap_generator(Noisy(3, 8, 8), (4,), 8)


def test_classes():
    class Conditional(Images):
        def forward(self, z, labels):
            return super().forward(z) * labels[:, None, None, None]

    generator = wrap_generator(Conditional(3, 8, 8), (4,), 8, num_classes=3, value_range=(0, 1))
    latents = generator.sample_latents(0, range(2))
    images = generator(latents, torch.tensor([0, 2]))
    assert torch.equal(images[0], -torch.ones(3, 8, 8))
    assert images[1].max() > 0
    with pytest.raises(ZeroshiftError, match="one label per latent"):
        generator(latents)
    ((drawn,),) = generate([generator], 2, truncation_psi=1.0, class_index=0)
    assert torch.equal(drawn, -torch.ones(2, 3, 8, 8))


def test_a_large_latent_is_not_a_mapper_input():
    assert wrap_generator(Images(3, 8, 8, latents=4097), (4097,), 8).mapper_input_dim is None


def test_files_have_the_keys_of_the_module_and_load_again(factories, tmp_path):
    generator = load_generator(f"{factories}:spec")
    with torch.no_grad():
        generator.module.main[0].weight.mul_(2)
        generator.module.main[1].running_mean.fill_(0.3)
    save_generator(generator, tmp_path / "g.safetensors", {"target": "zombie"})
    assert set(load_file(tmp_path / "g.safetensors")) == set(generator.module.state_dict())
    again = load_generator(tmp_path / "g.safetensors")
    latents = generator.sample_latents(0, range(2))
    assert isinstance(again, ModuleGenerator)
    assert torch.equal(again(latents), generator(latents))
    assert again.config == generator.config
    assert export_formats(again.architecture) == ["safetensors"]
    with pytest.raises(ZeroshiftError, match="cannot be exported as 'diffusers'"):
        export_generator(again, tmp_path / "folder", "diffusers")


def test_copies_can_be_blended(factories):
    source = load_generator(f"{factories}:spec")
    target = copy.deepcopy(source)
    with torch.no_grad():
        target.module.main[0].weight.add_(1)
    half = blend_weights(source, [target], [0.5])
    assert torch.allclose(half.module.main[0].weight, source.module.main[0].weight + 0.5)


def test_a_file_cannot_make_us_import_code(factories, tmp_path, monkeypatch):
    save_generator(load_generator(f"{factories}:spec"), tmp_path / "g.safetensors")
    sys.modules.pop(factories)
    monkeypatch.setattr(trusted, "_named", set())
    (tmp_path / "cache" / "trusted-factories.txt").unlink()
    for name in (tmp_path / "g.safetensors", f"{factories}:spec"):
        with pytest.raises(ZeroshiftError, match=f"not imported.*--trust {factories}:spec"):
            load_generator(name, trust=False)
    assert factories not in sys.modules
    assert architecture_of(tmp_path / "g.safetensors") == "module"
    trust(f"{factories}:spec")
    assert load_generator(tmp_path / "g.safetensors", trust=False).resolution == 16


def test_trust_lasts_on_this_machine(factories, tmp_path, monkeypatch):
    load_generator(f"{factories}:spec")
    monkeypatch.setattr(trusted, "_named", set())  # as in a new process
    assert trusted.is_trusted(f"{factories}:spec")
    (line,) = (tmp_path / "cache" / "trusted-factories.txt").read_text().splitlines()
    assert line.split("\t")[0] == f"{factories}:spec"
    with pytest.raises(ZeroshiftError, match="not the name of a factory"):
        trust("no factory")


def test_code_of_the_same_name_in_another_place_is_not_trusted(factories, tmp_path, monkeypatch):
    load_generator(f"{factories}:spec")
    sys.modules.pop(factories)
    monkeypatch.setattr(trusted, "_named", set())
    other = tmp_path / "other"
    other.mkdir()
    (other / f"{factories}.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(other)
    assert not trusted.is_trusted(f"{factories}:spec")
    with pytest.raises(ZeroshiftError, match="not imported"):
        load_generator(f"{factories}:spec", trust=False)


def test_a_cache_that_cannot_be_written_limits_trust_to_the_process(factories, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZEROSHIFT_CACHE", str(tmp_path / "file"))
    assert load_generator(f"{factories}:spec").resolution == 16
    assert trusted.is_trusted(f"{factories}:spec")


def test_a_module_without_a_factory_must_be_passed_again(tmp_path):
    module = Images(3, 8, 8)
    generator = wrap_generator(module, (4,), 8, value_range=(0, 1), name="mine")
    save_generator(generator, tmp_path / "g.safetensors")
    with pytest.raises(ZeroshiftError, match=r"without a factory \(mine\). Pass a module"):
        load_generator(tmp_path / "g.safetensors")
    other = Images(3, 8, 8)
    before = copy.deepcopy(other.state_dict())
    again = load_generator(tmp_path / "g.safetensors", module=other)
    latents = generator.sample_latents(0, range(2))
    assert torch.equal(again(latents), generator(latents))
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    with pytest.raises(ZeroshiftError, match=r"do not fit|given as 8"):
        load_generator(tmp_path / "g.safetensors", module=Images(3, 16, 16))


def test_a_factory_that_changed_is_refused(factories, tmp_path):
    save_generator(load_generator(f"{factories}:spec"), tmp_path / "g.safetensors")
    (tmp_path / f"{factories}.py").write_text(FACTORIES.replace("resolution=16)", "resolution=16, value_range=(0, 1))"))
    sys.modules.pop(factories)
    with pytest.raises(ZeroshiftError, match=f"{factories}:spec makes a module with another value_range"):
        load_generator(tmp_path / "g.safetensors")


def test_invalid_factories_are_refused(factories):
    with pytest.raises(ZeroshiftError, match=r"returns a int\. It must return a ModuleSpec"):
        load_generator(f"{factories}:nothing")
    with pytest.raises(ZeroshiftError, match="cannot be imported"):
        load_generator(f"{factories}:missing")
    with pytest.raises(ZeroshiftError, match="cannot be imported"):
        load_generator("no_such_package.gan:load")


def test_other_families_do_not_take_a_module(tiny_generator):
    with pytest.raises(ZeroshiftError, match="Leave the module out"):
        load_generator(tiny_generator, module=Images(3, 8, 8))


def test_tied_weights_are_saved(tmp_path):
    class Tied(Images):
        def __init__(self):
            super().__init__(3, 8, 8)
            self.again = nn.Linear(4, 192)
            self.again.weight = self.linear.weight

    save_generator(wrap_generator(Tied(), (4,), 8), tmp_path / "g.safetensors")
    weights = load_file(tmp_path / "g.safetensors")
    assert torch.equal(weights["again.weight"], weights["linear.weight"])


def test_the_public_names():
    import zeroshift

    assert zeroshift.wrap_generator is wrap_generator
    assert zeroshift.ModuleSpec is ModuleSpec


def test_the_docs_page(tmp_path, monkeypatch, tiny_encoder):
    """Every code block of docs/extending/generator.md that names its file is written and imported."""
    page = Path(__file__).parents[2] / "docs" / "extending" / "generator.md"
    blocks = code_blocks(page.read_text(encoding="utf-8"))
    for name, code in blocks.items():
        (tmp_path / name).write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    lines = [line for line in blocks["my_gan.py"].splitlines() if line.strip()]
    assert len(lines) <= 15 + len([line for line in lines if line.startswith(("import", "from", "#"))])
    try:
        wrapped = load_generator("my_gan:load")
        assert wrapped(wrapped.sample_latents(0, range(2))).shape == (2, 3, wrapped.resolution, wrapped.resolution)
        __import__("my_family")
        from zeroshift.generators.registry import FAMILIES

        family = FAMILIES["affine"]
        generator = family(resolution=8)
        save_generator(generator, tmp_path / "g.safetensors")
        latents = generator.sample_latents(0, range(2))
        assert torch.equal(load_generator(tmp_path / "g.safetensors")(latents), generator(latents))
        assert json.dumps(generator.config)
    finally:
        for name in ("my_gan", "my_family"):
            sys.modules.pop(name, None)
        from zeroshift.generators.registry import FAMILIES

        FAMILIES._loaded.pop("affine", None)


def code_blocks(page: str) -> dict[str, str]:
    """Python blocks of a page by the file name in their first line, "# FILE.py"."""
    blocks = [part.split("```")[0] for part in page.split("```python\n")[1:]]
    return {block.split("\n")[0].removeprefix("# ").strip(): block for block in blocks if block.startswith("# ")}


@pytest.mark.parametrize("factory", ["gray", "spec"])
def test_a_run_from_a_factory(factories, factory, tiny_encoder, tmp_path):
    """The run trains, resumes, is read again and generates; `adaptive` means all layers."""
    settings = {
        "prompts.steps": 2,
        "prompts.batch_size": 2,
        "adapt.steps": 2,
        "adapt.lr": 0.01,
        "preview_every": 0,
        "keep_checkpoints": True,
    }
    settings["keep_checkpoints"] = True
    base = preset(
        "published", "zombie", generator=f"{factories}:{factory}", encoders=(str(tiny_encoder),), device="cpu"
    )
    config = changed(base, settings)
    run = RunFolder.open(tmp_path / "run", config)
    result = adapt(config, run)
    trained = next(record["layers"] for record in result.history if record["stage"] == "adapt")
    assert trained == list(result.source.layers())
    again = RunFolder.open(tmp_path / "run", changed(config, {"adapt.steps": 3}))
    result = adapt(again.config, again)
    source, target = load_source_and_target(RunFolder.read(tmp_path / "run"))
    latents = source.sample_latents(0, range(2))
    assert torch.equal(target(latents), result.generator(latents))
    assert not torch.allclose(target(latents), source(latents))
    assert target.module.main[0].weight.shape[1] == 16
    assert target.module.main[6].weight.shape[1] == (1 if factory == "gray" else 3)


def test_a_run_from_an_object(tiny_encoder, tmp_path):
    generator = wrap_generator(Images(3, 8, 8), (4,), 8, value_range=(0, 1))
    settings = {"prompts.steps": 1, "prompts.batch_size": 2, "adapt.steps": 1, "preview_every": 0}
    base = preset("published", "zombie", family="module", encoders=(str(tiny_encoder),), device="cpu")
    result = adapt(changed(base, settings), generator=generator)
    save_generator(result.generator, tmp_path / "g.safetensors")
    latents = generator.sample_latents(0, range(2))
    again = load_generator(tmp_path / "g.safetensors", module=generator.module)
    assert torch.equal(again(latents), result.generator(latents))
    assert torch.equal(result.source(latents), generator(latents))


def test_a_factory_that_returns_other_weights_does_not_continue_a_run(factories, tiny_encoder, tmp_path):
    """The class itself is a factory without a seed: each call has other random weights."""
    settings = {
        "prompts.steps": 1,
        "prompts.batch_size": 2,
        "adapt.steps": 1,
        "preview_every": 0,
        "keep_checkpoints": True,
    }
    base = preset("published", "zombie", generator=f"{factories}:DCGAN", encoders=(str(tiny_encoder),), device="cpu")
    config = changed(base, settings)
    adapt(config, RunFolder.open(tmp_path / "run", config))
    longer = RunFolder.open(tmp_path / "run", changed(config, {"adapt.steps": 2}))
    with pytest.raises(ZeroshiftError, match="started from another source generator"):
        adapt(longer.config, longer)
