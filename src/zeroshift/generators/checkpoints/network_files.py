"""Writes generators for other engines: a folder with networks, as ONNX or as programs of torch.export, and index.json.

StyleGAN: `mapping`, z and truncation -> ws, and `synthesis`, ws -> images, with the stored noise. Diffusion
autoencoder:
`denoiser`, one prediction of its decoder; DDIM over the noise levels in index.json makes the image.
"""

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Synthesis, truncate
from zeroshift.io.owned_folder import replaced_folder, require_owned_folder

__all__ = [
    "INDEX", "OPSET", "write_onnx_denoiser", "write_onnx_stylegan", "write_torch_denoiser", "write_torch_stylegan",
]  # fmt: skip

INDEX = "index.json"
OPSET = 18


_Networks = Mapping[str, tuple[nn.Module, Mapping[str, Tensor], str]]  # name -> network, example inputs, output
_Export = Callable[[nn.Module, Mapping[str, Tensor], str, Path], Path]  # as `_export_onnx`


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


def write_onnx_stylegan(generator: Any, path: Path) -> None:
    """Writes mapping.onnx, synthesis.onnx and index.json of a StyleGAN2 or StyleGAN3 into a folder.

    Raises:
        ZeroshiftError: if the packages of the extra "onnx" are missing, or the folder holds files of others.
    """
    _require_packages()
    _write(path, *_stylegan(generator), _export_onnx, {"format": "onnx", "opset": OPSET})


def write_onnx_denoiser(generator: Any, path: Path) -> None:
    """Writes denoiser.onnx and index.json of a diffusion autoencoder into a folder.

    Raises:
        ZeroshiftError: as `write_onnx_stylegan`.
    """
    _require_packages()
    _write(path, *_autoencoder(generator), _export_onnx, {"format": "onnx", "opset": OPSET})


def write_torch_stylegan(generator: Any, path: Path) -> None:
    """Writes mapping.pt2, synthesis.pt2 and index.json of a StyleGAN2 or StyleGAN3 into a folder.

    Raises:
        ZeroshiftError: if the folder holds files of others.
    """
    _write(path, *_stylegan(generator), _export_program, {"format": "torch-export", "torch": torch.__version__})


def write_torch_denoiser(generator: Any, path: Path) -> None:
    """Writes denoiser.pt2 and index.json of a diffusion autoencoder into a folder.

    Raises:
        ZeroshiftError: as `write_torch_stylegan`.
    """
    _write(path, *_autoencoder(generator), _export_program, {"format": "torch-export", "torch": torch.__version__})


def _stylegan(generator: Any) -> tuple[_Networks, dict[str, Any]]:
    """The networks of a StyleGAN, and what index.json says of it."""
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
    return networks, {"architecture": generator.architecture, "resolution": generator.resolution}


def _autoencoder(generator: Any) -> tuple[_Networks, dict[str, Any]]:
    """The denoiser of a diffusion autoencoder, and what index.json says of it."""
    generator = copy.deepcopy(generator).cpu().eval()
    generator.unet.to(memory_format=torch.contiguous_format)  # torch.export does not store channels_last as a whole
    size, width = generator.resolution, generator.config["unet"]["z_dim"]
    inputs = {"x": torch.zeros(2, 3, size, size), "timestep": torch.tensor([1, 1]), "condition": torch.zeros(2, width)}
    described = {
        "architecture": generator.architecture,
        "resolution": size,
        "prediction_type": generator.schedule.config.prediction_type,
        "alphas_cumprod": generator.schedule.alphas.tolist(),
    }
    return {"denoiser": (_Denoiser(generator.unet), inputs, "prediction")}, described


def _write(
    path: Path, networks: _Networks, described: Mapping[str, Any], export: _Export, form: Mapping[str, Any]
) -> None:
    require_owned_folder(path, INDEX)
    with replaced_folder(path, INDEX) as folder:
        index: dict[str, Any] = {**described, **form, "networks": {}}
        for name, (network, inputs, output) in networks.items():
            network = network.eval().requires_grad_(False)
            with torch.no_grad():
                file = export(network, inputs, output, folder / name)
                shape = network(*inputs.values()).shape
            index["networks"][name] = {
                "file": file.name,
                "inputs": {name: _shape(value.shape) for name, value in inputs.items()},
                "outputs": {output: _shape(shape)},
            }
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _export_onnx(network: nn.Module, inputs: Mapping[str, Tensor], output: str, path: Path) -> Path:
    """Writes a network of dynamic batch as ONNX; returns the file, `path` with a suffix."""
    file = path.with_suffix(".onnx")
    with _quiet():
        program = torch.onnx.export(
            network, tuple(inputs.values()), dynamo=True, dynamic_shapes=_dynamic(inputs), opset_version=OPSET,
            input_names=list(inputs), output_names=[output], verbose=False,
        )  # fmt: skip
        assert program is not None
        program.save(str(file))
    return file


def _export_program(network: nn.Module, inputs: Mapping[str, Tensor], output: str, path: Path) -> Path:
    """Writes a network of dynamic batch as a program of torch.export; returns the file, `path` with a suffix."""
    file = path.with_suffix(".pt2")
    with _quiet():
        program = torch.export.export(network, tuple(inputs.values()), dynamic_shapes=_dynamic(inputs), strict=False)
        for part in program.graph_module.modules():
            for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
                node.meta.pop("stack_trace", None)  # it names files of this machine
        torch.export.save(program, file)
    return file


def _dynamic(inputs: Mapping[str, Tensor]) -> tuple[Any, ...]:
    """The dynamic sizes of some inputs: the same batch size for all but scalars."""
    names = [torch.export.Dim("batch", min=1, max=4096), *[torch.export.Dim.DYNAMIC] * len(inputs)]
    return tuple({0: name} if value.ndim else None for name, value in zip(names, inputs.values(), strict=False))


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
def _quiet() -> Iterator[None]:
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
