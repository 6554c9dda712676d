"""ONNX files compute what PyTorch computes, for every batch size."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from tests.helpers.evaluated_runs import make_run
from zeroshift.cli.main import main
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.files import export_generator
from zeroshift.generators.diffusion.autoencoder import DiffusionAutoencoder
from zeroshift.generators.stylegan.stylegan2 import StyleGAN2
from zeroshift.generators.stylegan.stylegan3 import StyleGAN3

pytestmark = pytest.mark.slow


def run(path: Path, **inputs: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return output


def stylegan(kind: str) -> Generator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "stylegan3":
            made: Generator = StyleGAN3(32, z_dim=8, w_dim=8, channel_base=256, channel_max=16)
        else:
            classes = 3 if kind == "conditional" else 0
            made = StyleGAN2(16, 8, 12, classes, 2, channels={4: 8, 8: 8, 16: 4}, conv_clamp=256)
            for conv in made.synthesis.convs():
                conv.noise_strength.data.fill_(0.5)
    made.mapping.w_avg.copy_(made.average_w())
    return made.eval()


@pytest.mark.parametrize("kind", ["stylegan2", "conditional", "stylegan3"])
def test_mapping_and_synthesis_equal_pytorch(kind: str, tmp_path: Path) -> None:
    generator = stylegan(kind)
    export_generator(generator, tmp_path / "onnx", format="onnx")
    index = json.loads((tmp_path / "onnx" / "index.json").read_text())
    assert index["networks"]["synthesis"]["outputs"] == {
        "images": ["batch", 3, generator.resolution, generator.resolution]
    }
    assert index["opset"] == 18
    for number in (1, 2, 5):
        z = generator.sample_latents(1, range(number))
        labels = torch.arange(number) % 3 if kind == "conditional" else None
        inputs = {"z": z, "truncation_psi": torch.tensor(0.6)}
        if labels is not None:
            inputs["labels"] = torch.eye(3)[labels]
        ws = run(tmp_path / "onnx" / "mapping.onnx", **inputs)
        images = run(tmp_path / "onnx" / "synthesis.onnx", ws=torch.from_numpy(ws))
        with torch.no_grad():
            codes = generator.codes(z, labels, truncation_psi=0.6)
            expected = generator.synthesize(codes)
        np.testing.assert_allclose(ws, codes, atol=1e-5)
        np.testing.assert_allclose(images, expected, atol=1e-3)


def test_a_denoiser_equals_pytorch(tmp_path: Path) -> None:
    network = {"resolution": 16, "channels": (8, 16), "z_dim": 6, "blocks": 1, "attention": (8,), "groups": 4}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = DiffusionAutoencoder({**network, "embed_dim": 20}, network, {"beta_schedule": "linear"}).eval()
        for parameter in generator.parameters():  # some are zero at first
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.7 / parameter[0].numel() ** 0.5)
    export_generator(generator, tmp_path / "onnx", format="onnx")
    index = json.loads((tmp_path / "onnx" / "index.json").read_text())
    assert index["prediction_type"] == "epsilon"
    np.testing.assert_allclose(index["alphas_cumprod"], generator.schedule.alphas.numpy())
    rng = torch.Generator().manual_seed(0)
    for number in (1, 3):
        x = torch.randn(number, 3, generator.resolution, generator.resolution, generator=rng)
        condition, time = torch.randn(number, generator.mapper_input_dim, generator=rng), torch.full((number,), 7)
        with torch.no_grad():
            expected = generator.unet(x, time, condition)
        prediction = run(tmp_path / "onnx" / "denoiser.onnx", x=x, timestep=time, condition=condition)
        np.testing.assert_allclose(prediction, expected, atol=1e-3)


def test_the_command_writes_a_folder_again_but_not_over_files_of_others(
    tmp_path: Path, tiny_generator: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tiny_generator, tmp_path / "run").path
    for _ in range(2):
        assert main(["export", str(run), "--format", "onnx"]) == 0
    files = {path.name for path in (run / "export").iterdir()}
    assert files == {"index.json", "mapping.onnx", "synthesis.onnx"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert main(["export", str(run), "--format", "onnx", "--out", str(tmp_path / "mine")]) == 1
    assert "not as zeroshift has written them" in " ".join(capsys.readouterr().err.split())


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ZeroshiftError, match=r"pip install 'zeroshift\[onnx\]'"):
        export_generator(stylegan("stylegan2"), tmp_path / "onnx", format="onnx")
    assert not (tmp_path / "onnx").exists()
