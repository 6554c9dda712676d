"""diffusers' DDIMPipeline with `load_lora_weights`, which diffusers offers for conditional U-Nets only."""

from pathlib import Path
from typing import Any

from diffusers import DDIMPipeline, UNet2DModel
from diffusers.loaders.peft import PeftAdapterMixin

from zeroshift.generators.diffusion.lora import LORA_FILE

__all__ = ["LoRADDIMPipeline", "LoRAUNet2DModel"]


class LoRAUNet2DModel(UNet2DModel, PeftAdapterMixin):
    """An unconditional U-Net with diffusers' LoRA adapters: load_lora_adapter, set_adapters, fuse_lora and others."""


class LoRADDIMPipeline(DDIMPipeline):
    """`LoRADDIMPipeline.from_pretrained(source)`, then `load_lora_weights(run)`."""

    unet: Any

    def __init__(self, unet: Any, scheduler: Any):
        adaptable: Any = LoRAUNet2DModel.from_config(unet.config)  # type: ignore[no-untyped-call]
        adaptable.load_state_dict(unet.state_dict())
        super().__init__(adaptable.to(unet.device, unet.dtype).eval(), scheduler)  # type: ignore[no-untyped-call]

    def load_lora_weights(self, folder: str | Path, adapter_name: str = "default") -> None:
        """Loads pytorch_lora_weights.safetensors from a folder, such as a run folder."""
        self.unet.load_lora_adapter(str(folder), prefix="unet", weight_name=LORA_FILE, adapter_name=adapter_name)
