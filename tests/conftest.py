"""Tiny random models, saved once per session, that behave like the real ones."""

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch

ENCODER_CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
KNOWN_WORDS = ["a", "photo", "of", "zombie", "person", "sketch", "the", "picture", "showing", "elf"]
KNOWN_LABELS = ["photo", "zombie", "sketch", "elf"]
REGISTRIES = [
    "zeroshift.clip.loading:ENCODERS",
    "zeroshift.evaluation.metrics.registry:MEASURES",
    "zeroshift.generators.checkpoints.catalogue:CATALOGUE",
    "zeroshift.generators.registry:FAMILIES",
    "zeroshift.methods.registry:METHODS",
    "zeroshift.methods.registry:PRESETS",
    "zeroshift.methods.registry:STAGES",
    "zeroshift.networks.registry:NETWORKS",
]


# A shell makes background processes, and their children, ignore Ctrl-C. The tests need it, so it is restored.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # tiny tensors, and the same sums on every machine


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP for 16-pixel images as one self-contained file, like the miniature guidance encoder."""
    import open_clip
    from safetensors.torch import save_file

    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = open_clip.CLIP(**ENCODER_CONFIG)
    path = tmp_path_factory.mktemp("models") / "encoder.safetensors"
    metadata = {
        "open_clip_config": ENCODER_CONFIG,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "templates": ["a photo of a {}", "a picture showing the {}"],
        "known_words": KNOWN_WORDS,
        "known_labels": KNOWN_LABELS,
    }
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, path, metadata={key: json.dumps(value) for key, value in metadata.items()})
    return path


@pytest.fixture(scope="session")
def tiny_generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random StyleGAN2 for 16-pixel images, in the project's own format."""
    from zeroshift.generators.checkpoints.files import save_generator
    from zeroshift.generators.stylegan.stylegan2 import StyleGAN2

    with torch.random.fork_rng():
        torch.manual_seed(2)
        generator = StyleGAN2(resolution=16, z_dim=16, w_dim=16, mapping_layers=2, channels={4: 16, 8: 16, 16: 8})
        for conv in generator.synthesis.convs():
            conv.noise_strength.data.fill_(0.1)
    path = tmp_path_factory.mktemp("models") / "generator.safetensors"
    save_generator(generator, path)
    return path


@pytest.fixture
def float64() -> Iterator[None]:
    """Runs in double precision, so that two computations of the same result agree on any processor.

    In float32 they may not: Adam's first steps are close to signs, and directions between similar images close to 0/0,
    so that rounding, which depends on the processor, grows within a few steps.
    """
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def example_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of tests/example_package, which acts as installed in this process and its child processes."""
    folder = Path(__file__).with_name("example_package")
    project = (folder / "pyproject.toml").read_text(encoding="utf-8")
    entry_points = re.sub(
        r'\[project\.entry-points\."(.*?)"\]', r"[\1]", project[project.index("[project.entry-points") :]
    )
    site = tmp_path / "site-packages"
    info = site / "zeroshift_example-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zeroshift-example\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(entry_points.replace('"', ""))
    paths = [str(folder), str(site)]
    for path in paths:
        monkeypatch.syspath_prepend(path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*paths, *os.environ.get("PYTHONPATH", "").split()]))
    for name in REGISTRIES:  # these read the entry points again, and drop the package afterward
        registry = resolve_name(name)
        monkeypatch.setattr(registry, "_entry_points", None)
        monkeypatch.setattr(registry, "_loaded", dict(registry._loaded))
    return folder
