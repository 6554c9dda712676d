"""The catalogue: names, addresses, sizes and locations of files."""

import dataclasses

import pytest

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints import catalogue as hub
from zeroshift.generators.checkpoints.files import load_generator


def test_resolve_uses_the_cache(monkeypatch, tmp_path):
    entry = dataclasses.replace(hub.CATALOGUE["ffhq"], address="https://example.org/x.pkl")
    monkeypatch.setitem(hub.CATALOGUE._loaded, "ffhq", entry)
    monkeypatch.setenv("ZEROSHIFT_CACHE", str(tmp_path / "cache"))
    asked = []
    monkeypatch.setattr(
        "zeroshift.io.downloads.download", lambda address, target, sha256: asked.append(address) or target
    )
    assert hub.resolve("ffhq") == tmp_path / "cache" / "generators" / "ffhq.pkl"
    assert asked == ["https://example.org/x.pkl"]


def test_a_file_of_the_same_name_comes_first(monkeypatch, tmp_path, tiny_generator):
    monkeypatch.chdir(tmp_path)
    for name in ("ffhq", "miniature"):
        (tmp_path / name).write_bytes(tiny_generator.read_bytes())
    assert hub.find_entry("ffhq") is None
    assert load_generator("ffhq").resolution == 16
    assert load_generator("miniature").resolution == 64, "shipped entries take precedence"


def test_load_generator_knows_the_names(tiny_generator, monkeypatch, tmp_path):
    monkeypatch.setenv("ZEROSHIFT_CACHE", str(tmp_path))
    (tmp_path / "generators").mkdir()
    (tmp_path / "generators" / "afhqdog.pkl").write_bytes(tiny_generator.read_bytes())
    assert load_generator("afhqdog").resolution == 16
    with pytest.raises(ZeroshiftError, match="Did you mean afhqdog"):
        load_generator("afhqdogs")


def test_a_shipped_entry_with_a_slash_comes_before_the_hub(monkeypatch, tmp_path):
    shipped = dataclasses.replace(hub.CATALOGUE["miniature"], name="mine/one")
    monkeypatch.setitem(hub.CATALOGUE._loaded, "mine/one", shipped)
    assert hub.resolve("mine/one").name == "generator.safetensors"


def test_a_mistyped_path_is_not_asked_for_at_the_hub(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(hub, "hub_folder", lambda name, *_, revision: asked.append(name) or tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for name in ("runs/mistyped", "./a/b", "~/model", "a/b.pkl", "a/b.safetensors", "a/b/c"):
        with pytest.raises(ZeroshiftError, match=r"There is no file or folder .* Check the path"):
            hub.resolve(name)
    assert not asked
    with pytest.warns(UserWarning, match=r"There is no file somebody/model; taking it for a model at https://hugg"):
        hub.resolve("somebody/model")
    hub.resolve("google/ddpm-cat-256")  # of the catalogue: no warning
    assert asked == ["somebody/model", "google/ddpm-cat-256"]


def test_unknown_names():
    with pytest.raises(ZeroshiftError, match=r"no known generator 'fhq'. Did you mean ffhq .*file's path"):
        hub.resolve("fhq")
    with pytest.raises(ZeroshiftError, match=r"'&&&'. Run `zeroshift models`"):
        hub.resolve("&&&")


def test_known_checkpoints():
    known = hub.known_checkpoints()
    assert known[0].name == "miniature"
    embedded = [checkpoint for checkpoint in known if checkpoint.package_file]
    assert all(checkpoint.resolution == 64 and checkpoint.address is None for checkpoint in embedded)
    assert all(checkpoint.size_mb > 1 for checkpoint in embedded)
    assert hub.resolve("miniature").parts[-3:] == ("miniature", "weights", "generator.safetensors")
    names = [checkpoint.name for checkpoint in known]
    assert len(set(names)) == len(names) == len(embedded) + 12 + 15 + 12 + 10
    addresses = {checkpoint.name: checkpoint.address for checkpoint in known}
    nvidia = "https://api.ngc.nvidia.com/v2/models/nvidia/research"
    assert addresses["ffhq"] == "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/ffhq.pkl"
    for family, name in (("stylegan3", "stylegan3-r-afhqv2-512x512"), ("stylegan2", "stylegan2-cifar10-32x32")):
        assert addresses[name] == f"{nvidia}/{family}/versions/1/files/{name}.pkl"
    for checkpoint in known[len(embedded) :]:
        assert checkpoint.address.startswith("https://")
        assert checkpoint.family in ("stylegan2", "stylegan3", "diffusion")
        if "x" in checkpoint.name.split("-")[-1]:
            assert checkpoint.name.endswith(f"-{checkpoint.resolution}x{checkpoint.resolution}")


def test_an_embedded_model_that_is_not_trained_yet(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "_shipped", lambda entry: tmp_path / entry.name)
    assert "miniature-diffusion" not in [checkpoint.name for checkpoint in hub.known_checkpoints()]
    with pytest.raises(ZeroshiftError, match="zeroshift miniature train diffusion"):
        hub.resolve("miniature-diffusion")
