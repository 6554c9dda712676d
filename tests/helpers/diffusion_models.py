"""Tiny random diffusion models, as folders of diffusers."""

from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, LDMPipeline, UNet2DModel, VQModel

UNET = {
    "sample_size": 16,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "attention_head_dim": 8,
}
DECODER = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 4,
    "num_vq_embeddings": 16,
}


def unet(**changes: Any) -> UNet2DModel:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return UNet2DModel(**{**UNET, **changes}).eval()


def ddpm(folder: Path, **changes: Any) -> Path:
    DDPMPipeline(unet(**changes), DDPMScheduler()).save_pretrained(folder)
    return folder


def ddim(folder: Path, **schedule: Any) -> Path:
    DDIMPipeline(unet(), DDIMScheduler(**schedule)).save_pretrained(folder)
    return folder


def ldm(folder: Path) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        decoder = VQModel(**DECODER)
    LDMPipeline(decoder, unet(sample_size=8), DDIMScheduler(clip_sample=False)).save_pretrained(folder)
    return folder
