"""Writes generators as ONNX, for onnxruntime and other engines: a folder with the networks and index.json.

StyleGAN: mapping.onnx, z and truncation -> ws, and synthesis.onnx, ws -> images, with the stored noise. Diffusion
autoencoder: denoiser.onnx, one prediction of its decoder; DDIM over the noise levels in index.json makes the image.
"""

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Synthesis, truncate
from zeroshift.io.owned_folder import replaced_folder, require_owned_folder

__all__ = ["INDEX", "OPSET", "write_denoiser", "write_stylegan"]

INDEX = "index.json"
OPSET = 18


class _Mapping(nn.Module):
    """z [N, z_dim], truncation_psi [], class labels [N, num_classes] if there are classes -> ws [N, num_ws, w_dim]."""

    def __init__(self, generator: Any):
        super().__init__()
        self.mapping, self.num_ws = generator.mapping, generator.num_ws

    def forward(self, z: Tensor, truncation_psi: Tensor, labels: Tensor | None = None) -> Tensor:
        w: Tensor = self.mapping(z, labels)
        w = self.mapping.w_avg + truncation_psi * (w - self.mapping.w_avg)
        return w.unsqueeze(1).repeat(1, self.num_ws, 1)


class _Denoiser(nn.Module):
    """x [N, 3, R, R], timestep [N], condition [N, z_dim] -> prediction [N, 3, R, R], of the noise or of v."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        prediction: Tensor = self.unet(x, timestep, condition)
        return prediction


def write_stylegan(generator: Any, path: Path) -> None:
    """Writes mapping.onnx, synthesis.onnx and index.json of a StyleGAN2 or StyleGAN3 into a folder.

    Raises:
        ZeroshiftError: if the packages of the extra "onnx" are missing, or the folder holds files of others.
    """
    generator = copy.deepcopy(generator).cpu().eval()
    z, psi = torch.zeros(2, *generator.latent_shape), torch.tensor(0.7)
    inputs: dict[str, Tensor] = {"z": z, "truncation_psi": psi}
    if generator.num_classes:
        inputs["labels"] = torch.eye(generator.num_classes)[[0, 0]]
    with torch.no_grad():
        ws = truncate(generator.codes(z, inputs.get("labels")), generator.mapping.w_avg, 0.7)
    networks = {
        "mapping": (_Mapping(generator), inputs, "ws"),
        "synthesis": (Synthesis(generator), {"ws": ws}, "images"),
    }
    _write(path, networks, {"architecture": generator.architecture, "resolution": generator.resolution})


def write_denoiser(generator: Any, path: Path) -> None:
    """Writes denoiser.onnx and index.json of a diffusion autoencoder into a folder.

    Raises:
        ZeroshiftError: as `write_stylegan`.
    """
    generator = copy.deepcopy(generator).cpu().eval()
    size, width = generator.resolution, generator.config["unet"]["z_dim"]
    inputs = {"x": torch.zeros(2, 3, size, size), "timestep": torch.tensor([1, 1]), "condition": torch.zeros(2, width)}
    described = {
        "architecture": generator.architecture,
        "resolution": size,
        "prediction_type": generator.schedule.config.prediction_type,
        "alphas_cumprod": generator.schedule.alphas.tolist(),
    }
    _write(path, {"denoiser": (_Denoiser(generator.unet), inputs, "prediction")}, described)


def _write(
    path: Path, networks: Mapping[str, tuple[nn.Module, Mapping[str, Tensor], str]], described: Mapping[str, Any]
) -> None:
    require_owned_folder(path, INDEX)
    _require_packages()
    with replaced_folder(path, INDEX) as folder:
        index: dict[str, Any] = {**described, "opset": OPSET, "networks": {}}
        for name, (network, inputs, output) in networks.items():
            index["networks"][name] = _export(network, inputs, output, folder / f"{name}.onnx")
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _export(network: nn.Module, inputs: Mapping[str, Tensor], output: str, path: Path) -> dict[str, Any]:
    """Writes a network with a dynamic batch; returns its description for the index."""
    network = network.eval().requires_grad_(False)
    names = [torch.export.Dim("batch", min=1, max=4096), *[torch.export.Dim.DYNAMIC] * len(inputs)]  # the same size
    dynamic = [{0: name} if value.ndim else None for name, value in zip(names, inputs.values(), strict=False)]
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network, tuple(inputs.values()), dynamo=True, dynamic_shapes=tuple(dynamic), opset_version=OPSET,
            input_names=list(inputs), output_names=[output], verbose=False,
        )  # fmt: skip
        assert program is not None
        program.save(str(path))
        shape = network(*inputs.values()).shape
    return {
        "file": path.name,
        "inputs": {name: _shape(value.shape) for name, value in inputs.items()},
        "outputs": {output: _shape(shape)},
    }


def _shape(shape: Sequence[int]) -> list[int | str]:
    return ["batch", *shape[1:]] if shape else []


def _require_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ZeroshiftError(
            "Writing ONNX needs packages that are not installed: pip install 'zeroshift[onnx]'."
        ) from error


@contextlib.contextmanager
def _quiet() -> Any:
    """Silences the exporter, which prints its progress and warns of its own workings."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(record=True):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
