"""diffusers' DDIMPipeline with `load_lora_weights`, which diffusers itself has for conditional U-Nets only."""

from pathlib import Path
from typing import Any

from diffusers import DDIMPipeline, UNet2DModel
from diffusers.loaders.peft import PeftAdapterMixin

from zeroshift.generators.diffusion.lora import LORA_FILE

__all__ = ["LoRADDIMPipeline", "LoRAUNet2DModel"]


class LoRAUNet2DModel(UNet2DModel, PeftAdapterMixin):
    """An unconditional U-Net that takes diffusers' LoRA adapters: load_lora_adapter, set_adapters, fuse_lora, ..."""


class LoRADDIMPipeline(DDIMPipeline):
    """`LoRADDIMPipeline.from_pretrained(source)`, then `load_lora_weights(run)`."""

    unet: Any

    def __init__(self, unet: Any, scheduler: Any):
        adaptable = LoRAUNet2DModel.from_config(unet.config)
        adaptable.load_state_dict(unet.state_dict())
        super().__init__(adaptable.to(unet.device, unet.dtype).eval(), scheduler)

    def load_lora_weights(self, folder: str | Path, adapter_name: str = "default") -> None:
        """Takes up the pytorch_lora_weights.safetensors of a folder, such as a run's."""
        self.unet.load_lora_adapter(str(folder), prefix="unet", weight_name=LORA_FILE, adapter_name=adapter_name)
