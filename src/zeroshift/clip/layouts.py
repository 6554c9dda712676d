"""State dicts of CLIP models under open_clip's names, from the files of OpenAI, open_clip and Hugging Face."""

import contextlib
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from zeroshift.clip.weights import open_content, read_safetensors, tensors_of
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.weights import contents, find_generators

__all__ = ["ClipWeights", "read_clip"]

_ANCHOR = "logit_scale"  # every CLIP model has it at the top
_IGNORED = re.compile(r"input_resolution|context_length|vocab_size|(text\.)?attn_mask|.*\.position_ids")
_HF_TOKENS = "text_model.embeddings.token_embedding.weight"
_MAX_SOURCE = 2**20  # bytes of one source file in a TorchScript archive
_MAX_SOURCES = 5000


@dataclass(frozen=True)
class ClipWeights:
    """The weights of a CLIP model."""

    state: dict[str, Tensor]
    """Floating-point tensors under open_clip's names."""
    quick_gelu: bool | None = None
    """Whether its activation is OpenAI's approximate GELU; None if the file does not tell."""


def read_clip(path: Path) -> ClipWeights:
    """The weights in a file of OpenAI (TorchScript or state dict), open_clip or Hugging Face's CLIPModel.

    Raises:
        ZeroshiftError: a file that cannot be read, or that holds no CLIP model.
    """
    if path.suffix == ".safetensors":
        state = {name.removeprefix("module."): value for name, value in read_safetensors(path)[0].items()}
        found, quick_gelu = ", ".join(list(state)[:3]), None
    else:
        content = open_content(path)
        models = find_generators(content, _ANCHOR, path)
        values = models[0].values if models else {}
        state = tensors_of(content, values, path)
        found = contents(content)
        quick_gelu = True if "input_resolution" in values else _quick_gelu_of_program(path)
    if _ANCHOR not in state:
        raise ZeroshiftError(f"{path} holds no CLIP model: it has no {_ANCHOR}, but {found or 'nothing'}.")
    state = {name: value for name, value in state.items() if not _IGNORED.fullmatch(name)}
    return ClipWeights(_from_hugging_face(state) if _HF_TOKENS in state else state, quick_gelu)


def _quick_gelu_of_program(path: Path) -> bool | None:
    """Which activation the program in a TorchScript archive calls; its source is searched, not run."""
    with contextlib.suppress(OSError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error):
        text = "".join(_sources(path))
        if "torch.gelu(" in text:
            return False
        if "torch.sigmoid(" in text:
            return True
    return None


def _sources(path: Path) -> Iterator[str]:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist()[:_MAX_SOURCES]:
            if "/code/" in name and name.endswith(".py"):
                with archive.open(name) as file:
                    yield file.read(_MAX_SOURCE).decode("utf-8", "replace")


_HF_TOWERS = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.": "ln_final.",
    "text_model.encoder.layers.": "transformer.resblocks.",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.": "visual.conv1.",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.": "visual.ln_pre.",
    "vision_model.post_layernorm.": "visual.ln_post.",
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
}
_HF_BLOCK = {
    "self_attn.out_proj.": "attn.out_proj.", "layer_norm1.": "ln_1.", "layer_norm2.": "ln_2.",
    "mlp.fc1.": "mlp.c_fc.", "mlp.fc2.": "mlp.c_proj.",
}  # fmt: skip
_HF_PROJECTIONS = {"text_projection.weight": "text_projection", "visual_projection.weight": "visual.proj"}
_HF_QUERY = re.compile(r"(.*\.)self_attn\.q_proj\.(weight|bias)")


def _from_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the weights of a CLIPModel; queries, keys and values become one matrix, projections are transposed."""
    renamed: dict[str, Tensor] = {}
    for name, value in state.items():
        query = _HF_QUERY.fullmatch(name)
        if query is not None:
            parts = [state.get(name.replace("q_proj", f"{one}_proj")) for one in "qkv"]
            if any(part is None or part.shape != value.shape for part in parts):
                raise ZeroshiftError(f"The weights lack the keys or values that belong to {name}.")
            renamed[f"{_hf_name(query[1])}attn.in_proj_{query[2]}"] = torch.cat(
                [part for part in parts if part is not None]
            )
        elif name in _HF_PROJECTIONS:
            renamed[_HF_PROJECTIONS[name]] = value.mT if value.ndim == 2 else value
        elif ".self_attn.k_proj." not in name and ".self_attn.v_proj." not in name:
            renamed[_hf_name(name)] = value
    return renamed


def _hf_name(name: str) -> str:
    for old, new in _HF_TOWERS.items():
        if name.startswith(old):
            name = new + name[len(old) :]
            break
    for old, new in _HF_BLOCK.items():
        name = name.replace(f".{old}", f".{new}")
    return name
