"""CLIP models in the files of other programs: OpenAI's TorchScript, state dicts, Hugging Face."""

import json
import warnings
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from zeroshift.clip.layouts import read_clip
from zeroshift.clip.loading import load_encoder
from zeroshift.errors import ZeroshiftError

VISION = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}
TEXT = {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
NAME = "zeroshift-test-layouts"  # plain GELU


@pytest.fixture(scope="module", autouse=True)
def named(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("configs") / f"{NAME}.json"
    path.write_text(json.dumps({"embed_dim": 8, "vision_cfg": VISION, "text_cfg": TEXT}))
    open_clip.add_model_config(path)


def model(quick_gelu: bool = False) -> Any:
    torch.manual_seed(0)
    return open_clip.CLIP(8, VISION, TEXT, quick_gelu=quick_gelu).eval()


def trace(module: nn.Module, path: Path) -> None:
    inputs = (torch.zeros(1, 3, 16, 16), torch.zeros(1, 20, dtype=torch.long))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer
        torch.jit.trace(module, inputs, check_trace=False).save(path)


def assert_same(path: Path, expected: Any, name: str = NAME) -> None:
    encoder = load_encoder(f"{name}/{path}")
    images, ids = torch.rand(2, 3, 16, 16) * 2 - 1, open_clip.SimpleTokenizer(context_length=20)(["a dog"])
    with torch.no_grad():
        features = expected.encode_text(ids)
    torch.testing.assert_close(encoder.encode_text(["a dog"]), features)
    state = encoder.model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in expected.state_dict().items())
    assert encoder.encode_image(images).isfinite().all()


@pytest.mark.parametrize("quick_gelu", [False, True])
def test_a_traced_model_is_read_without_running_it(
    quick_gelu: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = model(quick_gelu)
    trace(origin, tmp_path / "clip.pt")

    def run(*_: Any, **__: Any) -> None:
        raise AssertionError("the program in the file was loaded")

    monkeypatch.setattr(torch.jit, "load", run)
    monkeypatch.setattr(torch, "load", run)
    assert read_clip(tmp_path / "clip.pt").quick_gelu is quick_gelu
    assert_same(tmp_path / "clip.pt", origin)  # with the activation of the program in the file


class _OpenAI(nn.Module):
    """With the buffers that OpenAI's own archives have, in half precision."""

    def __init__(self, origin: Any):
        super().__init__()
        for name, child in origin.named_children():
            setattr(self, name, child)
        for name in ("positional_embedding", "text_projection", "logit_scale"):
            setattr(self, name, getattr(origin, name))
        for name, value in (("input_resolution", 16), ("context_length", 20), ("vocab_size", 49408)):
            self.register_buffer(name, torch.tensor(value))


def test_openais_state_dict_uses_its_own_activation(tmp_path: Path) -> None:
    origin = model(quick_gelu=True)
    torch.save(_OpenAI(origin).state_dict(), tmp_path / "clip.pt")
    assert_same(tmp_path / "clip.pt", origin)


def test_checkpoints_of_training_are_read(tmp_path: Path) -> None:
    origin = model()
    state = {f"module.{name}": value for name, value in origin.state_dict().items()}
    optimizer = torch.optim.AdamW(origin.parameters()).state_dict()
    checkpoint = {"epoch": 3, "name": "run", "state_dict": state, "optimizer": optimizer, "scaler": {"scale": 65536.0}}
    torch.save(checkpoint, tmp_path / "epoch_3.pt")
    assert_same(tmp_path / "epoch_3.pt", origin)
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert_same(tmp_path / "old.pt", origin)
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "w.safetensors")
    assert_same(tmp_path / "w.safetensors", origin)


def hugging_face() -> Any:
    transformers = pytest.importorskip("transformers")
    vision = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 16, "patch_size": 8, "hidden_act": "gelu"}
    text = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"vocab_size": 49408, "max_position_embeddings": 20, "hidden_act": "gelu", "eos_token_id": 49407}
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    return transformers.CLIPModel(config).eval()


@pytest.mark.parametrize("suffix", ["bin", "safetensors"])
def test_a_clip_model_of_hugging_face_gives_the_same_features(suffix: str, tmp_path: Path) -> None:
    origin = hugging_face()
    state = {name: value.contiguous() for name, value in origin.state_dict().items()}
    if suffix == "bin":
        torch.save(state, tmp_path / "model.bin")
    else:
        save_file(state, tmp_path / "model.safetensors")
    encoder = load_encoder(f"{NAME}/{tmp_path}/model.{suffix}")
    pixels, ids = torch.randn(2, 3, 16, 16), open_clip.SimpleTokenizer(context_length=20)(["a dog", "an old cat"])
    with torch.no_grad():
        output = origin(input_ids=ids, pixel_values=pixels)
        images, texts = encoder.model.encode_image(pixels), encoder.model.encode_text(ids)
    torch.testing.assert_close(nn.functional.normalize(images, dim=-1), output.image_embeds)
    torch.testing.assert_close(nn.functional.normalize(texts, dim=-1), output.text_embeds)


def test_another_architecture_is_named(tmp_path: Path) -> None:
    origin = open_clip.CLIP(8, {**VISION, "width": 32}, TEXT)
    torch.save(origin.state_dict(), tmp_path / "wide.pt")
    with pytest.raises(ZeroshiftError, match=r"wide\.pt holds weights of another model: .* of another size \(visual"):
        load_encoder(f"{NAME}/{tmp_path}/wide.pt")
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ZeroshiftError, match=r"holds no CLIP model: it has no logit_scale, but a \(a tensor\)"):
        load_encoder(f"{NAME}/{tmp_path}/other.pt")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    origin = model()
    origin.ln_final.weight.data[3] = float("nan")
    torch.save(origin.state_dict(), tmp_path / "nan.pt")
    with pytest.raises(ZeroshiftError, match=r"nan\.pt has weights that are not finite numbers, in ln_final\.weight"):
        load_encoder(f"{NAME}/{tmp_path}/nan.pt")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", r"pointer of Git LFS.*git lfs pull"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"PK\x03\x04 damaged", "damaged or in another format"),
        (b"\x80\x02}q\x00.", "damaged or in another format"),
    ],
)
def test_files_without_weights_are_described(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(ZeroshiftError, match=sentence) as raised:
        load_encoder(f"{NAME}/{tmp_path}/w.pt")
    assert "weights_only" not in str(raised.value)


def test_folders_and_missing_files_are_described(tmp_path: Path) -> None:
    with pytest.raises(ZeroshiftError, match="is a folder"):
        load_encoder(f"{NAME}/{tmp_path}")
    with pytest.raises(ZeroshiftError, match=r"There is no weights file .*nothing\.pt"):
        load_encoder(f"{NAME}/{tmp_path}/nothing.pt")
    with pytest.raises(ZeroshiftError, match="is a folder"):
        load_encoder(str(tmp_path))
