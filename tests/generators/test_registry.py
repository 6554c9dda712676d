"""Generator families of this package and of others: listed, saved, loaded, exported, read from their own files."""

import subprocess
import sys

import pytest
import torch

from zeroshift.config.settings import GeneratorOptions
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints import catalogue
from zeroshift.generators.checkpoints.architectures import architecture_of
from zeroshift.generators.checkpoints.files import (
    export_formats,
    export_generator,
    export_suffix,
    load_generator,
    save_generator,
)
from zeroshift.generators.diffusion.options import DDIMOptions
from zeroshift.generators.registry import FAMILIES


def test_families_are_registered_under_their_architecture():
    for name in FAMILIES:
        family = FAMILIES[name]
        assert issubclass(family, Generator)
        assert family.architecture == name
        assert issubclass(family.Options, GeneratorOptions)
        assert set(family.deliveries.values()) <= set(family.exports)


def test_formats_belong_to_their_family():
    assert export_formats("stylegan2") == ["safetensors", "rosinality-pt", "nvidia-pkl", "onnx", "torch-export"]
    assert export_formats("diffusion") == ["safetensors", "diffusers"]
    assert export_formats("diffusion_autoencoder") == ["safetensors", "onnx", "torch-export"]
    assert [export_suffix("stylegan2", name) for name in export_formats("stylegan2")] == [
        ".safetensors",
        ".pt",
        ".pkl",
        "",
        "",
    ]
    assert export_suffix("diffusion", "diffusers") == ""
    with pytest.raises(ZeroshiftError, match="no generator family 'vae'"):
        export_formats("vae")


def test_options_of_another_family_are_refused(tiny_generator):
    generator = load_generator(tiny_generator)
    generator.configure(GeneratorOptions())
    with pytest.raises(ZeroshiftError, match="stylegan2 generator takes no DDIMOptions"):
        generator.configure(DDIMOptions())


def test_saved_options_of_version_0_1():
    saved = {"t0": 0.6, "clip": False, "each_step": True, "checkpointing": True}
    options = DDIMOptions(t0=0.6, clip_sample=False, train_each_step=True, gradient_checkpointing=True)
    assert DDIMOptions.from_saved(saved) == options
    assert DDIMOptions.from_saved(None) == DDIMOptions()


def test_a_family_of_another_package(example_package, tmp_path):
    assert "example_family" in FAMILIES
    family = FAMILIES["example_family"]
    generator = family(resolution=16)
    latents = generator.sample_latents(0, range(2))
    save_generator(generator, tmp_path / "g.safetensors")
    assert architecture_of(tmp_path / "g.safetensors") == "example_family"
    again = load_generator(tmp_path / "g.safetensors")
    assert type(again) is family
    assert torch.equal(again(latents), generator(latents))

    assert export_formats("example_family") == ["safetensors", "npz"]
    export_generator(generator, tmp_path / "g.npz", "npz")
    assert architecture_of(tmp_path / "g.npz") == "example_family"
    assert torch.equal(load_generator(tmp_path / "g.npz")(latents), generator(latents))

    generator.configure(family.Options(contrast=2.0))
    assert not torch.equal(generator(latents), again(latents))
    with pytest.raises(ZeroshiftError, match="takes no DDIMOptions"):
        generator.configure(DDIMOptions())


def test_a_catalogue_entry_of_another_package(example_package):
    assert catalogue.find_entry("example").family == "example_family"
    assert "example" in [entry.name for entry in catalogue.known_checkpoints()]
    assert load_generator("example").resolution == 16


@pytest.mark.slow
def test_a_file_of_an_uninstalled_family_is_refused(tmp_path, request):
    example = request.getfixturevalue("example_package")
    save_generator(FAMILIES["example_family"](), tmp_path / "g.safetensors")
    program = (
        "from zeroshift.generators.checkpoints.files import load_generator\n"
        f"load_generator({str(tmp_path / 'g.safetensors')!r})"
    )
    done = subprocess.run([sys.executable, "-c", program], env={"PATH": ""}, capture_output=True, text=True)
    assert example.is_dir()
    assert "unknown family 'example_family'. Install the package" in done.stderr


def test_a_registered_family(tmp_path, monkeypatch):
    monkeypatch.setattr(FAMILIES, "_loaded", dict(FAMILIES._loaded))
    stylegan2 = FAMILIES["stylegan2"]

    @FAMILIES.register("mine")
    class Mine(stylegan2):
        architecture = "mine"

    generator = Mine(resolution=8, z_dim=4, w_dim=4, channels={4: 4, 8: 4})
    save_generator(generator, tmp_path / "g.safetensors")
    assert type(load_generator(tmp_path / "g.safetensors")) is Mine


def test_the_entry_of_an_adapted_generator(tmp_path):
    for name in ("miniature", "miniature-autoencoder"):
        generator = load_generator(name)
        if "sampling" in generator.config:
            generator.configure(DDIMOptions(t0=0.9))  # settings of a run do not distinguish generators
        save_generator(generator, tmp_path / "adapted.safetensors", {"target": "zombie"})
        assert catalogue.find_entry(tmp_path / "adapted.safetensors").name == name


def test_other_files_have_no_entry(tiny_generator, tmp_path):
    (tmp_path / "damaged.safetensors").write_bytes(b"\xff" * 20)
    for generator in (tiny_generator, tmp_path / "damaged.safetensors", tmp_path / "none.safetensors", "nobody"):
        assert catalogue.find_entry(str(generator)) is None


def test_the_catalogue_does_not_import_torch():
    program = (
        "import sys\nfrom zeroshift.generators.checkpoints.catalogue import find_entry\n"
        "assert find_entry('miniature').preset == 'miniature'\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
