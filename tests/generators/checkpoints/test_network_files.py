"""ONNX files and programs of torch.export compute what the generator computes, for every batch size."""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import zeroshift
from tests.helpers.evaluated_runs import make_run
from zeroshift.cli.main import main
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.files import export_generator
from zeroshift.generators.diffusion.autoencoder import DiffusionAutoencoder
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.generators.stylegan.stylegan3 import StyleGAN3

pytestmark = pytest.mark.slow


FORMATS = pytest.mark.parametrize("form", ["onnx", "torch-export"])


def run(folder: Path, name: str, **inputs: torch.Tensor) -> np.ndarray:
    """The output of a network of the index, by the program that its format is for."""
    network = json.loads((folder / "index.json").read_text())["networks"][name]
    assert list(network["inputs"]) == list(inputs)
    path = folder / network["file"]
    if path.suffix == ".pt2":
        output: torch.Tensor = torch.export.load(path).module()(*inputs.values())
        return output.numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (onnx_output,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return onnx_output


def stylegan(kind: str) -> Generator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "stylegan3":
            made: Generator = StyleGAN3(16, 8, 8, channel_base=256, channel_max=16, num_layers=4, margin_size=4)
        else:
            classes = 3 if kind == "conditional" else 0
            made = StyleGAN2(16, 8, 12, classes, 2, channels={4: 8, 8: 8, 16: 4}, conv_clamp=256)
            for conv in made.synthesis.convs():
                conv.noise_strength.data.fill_(0.5)
    made.mapping.w_avg.copy_(made.average_w())
    return made.eval()


@FORMATS
@pytest.mark.parametrize("kind", ["stylegan2", "conditional", "stylegan3"])
def test_mapping_and_synthesis_equal_the_generator(kind: str, form: str, tmp_path: Path) -> None:
    generator, folder = stylegan(kind), tmp_path / form
    export_generator(generator, folder, format=form)
    index = json.loads((folder / "index.json").read_text())
    assert index["format"] == form
    assert index["networks"]["synthesis"]["outputs"] == {
        "images": ["batch", 3, generator.resolution, generator.resolution]
    }
    assert index["opset"] == 18 if form == "onnx" else index["torch"] == torch.__version__
    for number in (1, 2, 5):
        z = generator.sample_latents(1, range(number))
        labels = torch.arange(number) % 3 if kind == "conditional" else None
        inputs = {"z": z, "truncation_psi": torch.tensor(0.6)}
        if labels is not None:
            inputs["labels"] = torch.eye(3)[labels]
        ws = run(folder, "mapping", **inputs)
        images = run(folder, "synthesis", ws=torch.from_numpy(ws))
        with torch.no_grad():
            codes = generator.codes(z, labels, truncation_psi=0.6)
            expected = generator.synthesize(codes)
        np.testing.assert_allclose(ws, codes, atol=1e-5)
        np.testing.assert_allclose(images, expected, atol=1e-3)


@FORMATS
def test_a_denoiser_equals_the_generator(form: str, tmp_path: Path) -> None:
    network = {"resolution": 16, "channels": (8, 16), "z_dim": 6, "blocks": 1, "attention": (8,), "groups": 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = DiffusionAutoencoder({**network, "embed_dim": 20}, network, {"beta_schedule": "linear"}).eval()
        for parameter in generator.parameters():  # some are zero at first
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.7 / parameter[0].numel() ** 0.5)
    export_generator(generator, tmp_path / form, format=form)
    index = json.loads((tmp_path / form / "index.json").read_text())
    assert index["prediction_type"] == "epsilon"
    np.testing.assert_allclose(index["alphas_cumprod"], generator.schedule.alphas.numpy())
    rng = torch.Generator().manual_seed(0)
    for number in (1, 3):
        x = torch.randn(number, 3, generator.resolution, generator.resolution, generator=rng)
        condition, time = torch.randn(number, generator.mapper_input_dim, generator=rng), torch.full((number,), 7)
        with torch.no_grad():
            expected = generator.unet(x, time, condition)
        prediction = run(tmp_path / form, "denoiser", x=x, timestep=time, condition=condition)
        np.testing.assert_allclose(prediction, expected, atol=1e-3)


def test_the_command_writes_a_folder_again_but_not_over_files_of_others(
    tmp_path: Path, tiny_generator: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tiny_generator, tmp_path / "run").path
    for _ in range(2):
        assert main(["export", str(run), "--format", "torch-export"]) == 0
    files = {path.name for path in (run / "export").iterdir()}
    assert files == {"index.json", "mapping.pt2", "synthesis.pt2"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert main(["export", str(run), "--format", "torch-export", "--out", str(tmp_path / "mine")]) == 1
    assert "not as zeroshift has written them" in " ".join(capsys.readouterr().err.split())


def test_programs_name_no_files_of_this_machine(tmp_path: Path) -> None:
    export_generator(stylegan("stylegan2"), tmp_path / "export", format="torch-export")
    for path in (tmp_path / "export").glob("*.pt2"):
        with zipfile.ZipFile(path) as archive:
            content = b"".join(archive.read(name) for name in archive.namelist())
        assert b"site-packages" not in content
        assert str(Path(zeroshift.__file__).parent).encode() not in content


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ZeroshiftError, match=r"pip install 'zeroshift\[onnx\]'"):
        export_generator(stylegan("stylegan2"), tmp_path / "onnx", format="onnx")
    assert not (tmp_path / "onnx").exists()
