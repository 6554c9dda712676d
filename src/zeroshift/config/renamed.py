"""Settings that had other names in version 0.1."""

__all__ = ["RENAMED", "current_name"]

# Names of version 0.1, which old run folders contain.
RENAMED = {
    "images": "source_images_dir",
    "latents": "num_latents",
    "truncation": "truncation_psi",
    "prompts.batch": "prompts.batch_size",
    "adapt.batch": "adapt.batch_size",
    "adapt.accumulate": "adapt.grad_accumulation_steps",
    "adapt.lr_last": "adapt.lr_final",
    "adapt.ema": "adapt.ema_decay",
    "adapt.layer_batch": "adapt.layer_batch_size",
    "adapt.noise": "adapt.noise_mode",
    "adapt.views": "adapt.augmentations",
    "adapt.recogniser": "adapt.identity_network",
    "adapt.lora": "adapt.lora_rank",
    "diffusion.clip": "sampling.clip_sample",
    "diffusion.each_step": "sampling.train_each_step",
    "diffusion.checkpointing": "sampling.gradient_checkpointing",
    "options.start": "anchor_start",
    "options.every": "anchor_every",
    "options.context": "prompt_context",
    "options.samples": "anchor_samples",
}
_RENAMED_GROUPS = {"diffusion.": "sampling.", "options.": ""}


def current_name(name: str) -> str:
    """The current name of a setting that version 0.1 called `name`; other names are returned unchanged."""
    if name in RENAMED:
        return RENAMED[name]
    for old, new in _RENAMED_GROUPS.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
