"""Tiny random models as files: an encoder and a StyleGAN2 for 16-pixel images."""

import json
from pathlib import Path

import torch

ENCODER_CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
KNOWN_WORDS = ["a", "photo", "of", "zombie", "person", "sketch", "the", "picture", "showing", "elf"]
KNOWN_LABELS = ["photo", "zombie", "sketch", "elf"]


def save_tiny_encoder(path: Path) -> Path:
    """A random CLIP for 16-pixel images as one self-contained file, like the miniature guidance encoder."""
    import open_clip
    from safetensors.torch import save_file

    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = open_clip.CLIP(**ENCODER_CONFIG)
    metadata = {
        "open_clip_config": ENCODER_CONFIG,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "templates": ["a photo of a {}", "a picture showing the {}"],
        "known_words": KNOWN_WORDS,
        "known_labels": KNOWN_LABELS,
    }
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, path, metadata={key: json.dumps(value) for key, value in metadata.items()})
    return path


def save_tiny_generator(path: Path) -> Path:
    """A random StyleGAN2 for 16-pixel images, in the project's own format."""
    from zeroshift.generators.checkpoints.files import save_generator
    from zeroshift.generators.stylegan.stylegan2 import StyleGAN2

    with torch.random.fork_rng():
        torch.manual_seed(2)
        generator = StyleGAN2(resolution=16, z_dim=16, w_dim=16, mapping_layers=2, channels={4: 16, 8: 16, 16: 8})
        for conv in generator.synthesis.convs():
            conv.noise_strength.data.fill_(0.1)
    save_generator(generator, path)
    return path
