"""Folders of diffusers: every packing that diffusers writes, and sentences for the rest."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

from tests.helpers.diffusion_models import ddpm, ldm, unet
from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.files import load_generator

NAME = "diffusion_pytorch_model"
WEIGHTS = f"unet/{NAME}.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return ddpm(tmp_path / "ddpm")


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def same_weights(folder: Path, network: UNet2DModel) -> bool:
    loaded = load_generator(folder).unet.state_dict()
    return all(torch.equal(value, loaded[name]) for name, value in network.state_dict().items())


def test_a_variant_alone_is_read_and_named(tmp_path: Path) -> None:
    DDPMPipeline(unet().half(), DDPMScheduler()).save_pretrained(tmp_path / "half", variant="fp16")
    with pytest.warns(UserWarning, match="those of the variant fp16"):
        assert same_weights(tmp_path / "half", unet().half().float())


def test_full_precision_precedes_a_variant(folder: Path) -> None:
    shutil.copy(folder / WEIGHTS, folder / f"unet/{NAME}.fp16.safetensors")
    with pytest.warns(UserWarning, match="full precision are used, not the variant fp16"):
        assert same_weights(folder, unet())


def test_unknown_variants_are_not_chosen(folder: Path) -> None:
    for variant in ("ema", "non_ema"):
        shutil.copy(folder / WEIGHTS, folder / f"unet/{NAME}.{variant}.safetensors")
    (folder / WEIGHTS).unlink()
    with pytest.raises(ZeroshiftError, match="variants ema, non_ema and none without"):
        load_generator(folder)


@pytest.mark.parametrize("safe", [True, False])
def test_shards(tmp_path: Path, safe: bool) -> None:
    folder = tmp_path / "shards"
    DDPMPipeline(unet(), DDPMScheduler()).save_pretrained(folder)
    (folder / WEIGHTS).unlink()
    unet().save_pretrained(folder / "unet", max_shard_size="20KB", safe_serialization=safe)
    shards = sorted((folder / "unet").glob(f"{NAME}-*"))
    assert len(shards) > 2
    assert same_weights(folder, unet())
    shards[1].unlink()
    with pytest.raises(ZeroshiftError, match=f"{shards[1].name} is missing"):
        load_generator(folder)


def test_pickled_weights(tmp_path: Path) -> None:
    DDPMPipeline(unet(), DDPMScheduler()).save_pretrained(tmp_path / "bin", safe_serialization=False)
    assert same_weights(tmp_path / "bin", unet())
    torch.save({"conv_in.weight": os.system}, tmp_path / f"bin/unet/{NAME}.bin")
    with pytest.raises(ZeroshiftError, match="runs code"):
        load_generator(tmp_path / "bin")


def test_names_of_old_attention_layers(folder: Path) -> None:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, value in load_file(folder / WEIGHTS).items():
        for new, former in old.items():
            name = name.replace(f".{new}.", f".{former}.")
        renamed[name] = value
    assert any("proj_attn" in name for name in renamed)
    save_file(renamed, folder / WEIGHTS, metadata={"format": "pt"})
    assert same_weights(folder, unet())


def test_a_square_sample_size_as_a_list(folder: Path) -> None:
    change(folder / "unet/config.json", sample_size=[16, 16])
    assert load_generator(folder).resolution == 16
    change(folder / "unet/config.json", sample_size=[16, 24])
    with pytest.raises(ZeroshiftError, match="16 x 24 pixels; they must be square"):
        load_generator(folder)


@pytest.mark.parametrize("schedule", ["sigmoid", "laplace"])
def test_schedules_that_only_ddpm_knows(tmp_path: Path, schedule: str) -> None:
    scheduler = DDPMScheduler(beta_schedule=schedule)
    DDPMPipeline(unet(), scheduler).save_pretrained(tmp_path / "ddpm")
    assert torch.equal(load_generator(tmp_path / "ddpm").schedule.alphas, scheduler.alphas_cumprod)


def test_pure_noise_without_an_image_is_refused_before_any_work(folder: Path) -> None:
    change(folder / "scheduler/scheduler_config.json", rescale_betas_zero_snr=True)
    with pytest.raises(ZeroshiftError, match=r"noise schedule ends in pure noise .rescale_betas_zero_snr."):
        load_generator(folder)


def test_weights_that_the_configuration_does_not_describe(folder: Path) -> None:
    """Nothing is allocated for what a configuration claims and the file does not have."""
    change(folder / "unet/config.json", block_out_channels=[16384, 16384])
    with pytest.raises(ZeroshiftError, match="do not fit its description"):
        load_generator(folder)
    change(folder / "unet/config.json", block_out_channels=[8, 16], layers_per_block=2)
    with pytest.raises(ZeroshiftError, match=r"\(missing\)"):
        load_generator(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("unet/config.json", b"{", "config.json is not valid JSON"),
        ("unet/config.json", b"[" * 100_000, "nested more than"),
        ("unet/config.json", b"[3]", "is not a JSON object"),
        ("unet/config.json", b"{}", "sample_size is None"),
        ("unet/config.json", None, "There is no config.json in .*unet"),
        ("scheduler/scheduler_config.json", None, "There is no scheduler_config.json"),
        ("scheduler/scheduler_config.json", b"\xff", "not text in UTF-8"),
        ("model_index.json", b"[]", "is not a JSON object"),
        ("model_index.json", b"{}", "has no unet"),
        ("model_index.json", b'{"unet": [7, [8]]}', "Supported are"),
        ("model_index.json", None, "has a folder unet but no model_index.json"),
        (WEIGHTS, None, "no file diffusion_pytorch_model.safetensors .or .bin.. It holds nothing else"),
        (WEIGHTS, b"{", "is damaged: it is not a complete safetensors file"),
    ],
)
def test_damaged_folders(folder: Path, name: str, content: bytes | None, message: str) -> None:
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    with pytest.raises(ZeroshiftError, match=message):
        load_generator(folder)


def test_weights_under_another_name_are_named(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "unet/model.safetensors")
    with pytest.raises(ZeroshiftError, match=r"It holds model.safetensors. Copy the file there, or give it this name"):
        load_generator(folder)


@pytest.mark.parametrize("place", ["../secret.safetensors", "/etc/passwd.safetensors", "a/b.safetensors", "x.pkl", ""])
def test_an_index_reaches_no_other_folder(folder: Path, place: str) -> None:
    (folder / WEIGHTS).unlink()
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": {"conv_in.weight": place}}))
    with pytest.raises(ZeroshiftError, match=r"weight_map.conv_in.weight is"):
        load_generator(folder)


def test_links_and_pipes(folder: Path, tmp_path: Path) -> None:
    """The cache of the Hugging Face Hub consists of links, so that links to files are followed."""
    (folder / WEIGHTS).rename(tmp_path / "blob")
    (folder / WEIGHTS).symlink_to(tmp_path / "blob")
    assert same_weights(folder, unet())
    (tmp_path / "blob").unlink()
    with pytest.raises(ZeroshiftError, match="a link to a file that is missing"):
        load_generator(folder)
    (folder / "unet/config.json").unlink()
    os.mkfifo(folder / "unet/config.json")
    with pytest.raises(ZeroshiftError, match="no regular file"):
        load_generator(folder)


def test_other_pipelines_are_named(folder: Path) -> None:
    change(
        folder / "model_index.json",
        _class_name="StableDiffusionPipeline",
        unet=["diffusers", "UNet2DConditionModel"],
        text_encoder=["transformers", "CLIPTextModel"],
        safety_checker=[None, None],
    )
    with pytest.raises(
        ZeroshiftError,
        match=r"is a StableDiffusionPipeline \(UNet2DConditionModel as unet, text_encoder\).*DDPMPipeline",
    ):
        load_generator(folder)


def test_a_single_network_and_folders_without_any(folder: Path, tmp_path: Path) -> None:
    bare = folder / "unet"
    assert not load_generator(bare).schedule.config.rescale_betas_zero_snr
    (bare / "scheduler_config.json").write_text('{"num_train_timesteps": 500}')
    assert len(load_generator(bare).schedule) == 500, "the schedule beside it"
    change(bare / "config.json", _class_name="UNet2DConditionModel")
    with pytest.raises(ZeroshiftError, match=r"is a UNet2DConditionModel. Only unconditional"):
        load_generator(bare)
    (bare / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ZeroshiftError, match="it has no _class_name"):
        load_generator(bare)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    with pytest.raises(ZeroshiftError, match=r"without model_index.json or config.json; it holds notes.txt"):
        load_generator(tmp_path / "empty")


def test_decoders_are_checked_as_well(tmp_path: Path) -> None:
    folder = ldm(tmp_path / "ldm")
    assert load_generator(folder).resolution == 16
    change(folder / "vqvae/config.json", layers_per_block=10**9)
    with pytest.raises(ZeroshiftError, match=r"vqvae.config.json does not match: layers_per_block is 1000000000"):
        load_generator(folder)
    (folder / f"vqvae/{NAME}.safetensors").unlink()
    change(folder / "vqvae/config.json", layers_per_block=1)
    with pytest.raises(ZeroshiftError, match="vqvae has no weights"):
        load_generator(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_without_permission_are_named(folder: Path) -> None:
    (folder / WEIGHTS).chmod(0)
    with pytest.raises(ZeroshiftError, match="cannot be read: Permission denied"):
        load_generator(folder)
