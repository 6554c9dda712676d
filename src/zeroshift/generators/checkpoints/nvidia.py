"""Generators of NVIDIA's programs (stylegan2-ada-pytorch, stylegan3) and of their forks.

Their .pkl files are plain pickles of {"G": ..., "D": ..., "G_ema": ..., "training_set_kwargs": ...}. A network in them
is a call of `torch_utils.persistence._reconstruct_persistent_obj` on a dictionary with the source code of its class,
which the published programs execute, and with its `__dict__`, which is all we need: parameters, buffers, submodules,
constructor arguments. Forks also save the state dicts alone, with torch.save.
"""

import pickle
from typing import Any

from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.base import Generator
from zeroshift.generators.checkpoints.stylegan2_layouts import stylegan2_from_nvidia
from zeroshift.generators.checkpoints.stylegan3_layouts import stylegan3_from_nvidia
from zeroshift.generators.checkpoints.torch_data import Content
from zeroshift.generators.checkpoints.weights import SavedGenerator
from zeroshift.io.pickles import items_of

__all__ = ["ANCHORS", "nvidia_generator", "nvidia_weights"]

ANCHORS = ("synthesis.b4.const", "synthesis.input.freqs")  # a weight that tells a StyleGAN2, a StyleGAN3

_ARGUMENTS = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "mapping_kwargs")
_OF_LAYERS = ("architecture", "activation", "conv_clamp")


def nvidia_generator(saved: SavedGenerator, content: Content) -> Generator:
    """The generator, in evaluation mode on the CPU.

    Raises:
        ZeroshiftError: settings or weights of another kind of generator.
    """
    weights, settings = nvidia_weights(saved, content)

    def may_ignore(name: str) -> bool:
        known = name.split(".")[0] in ("mapping", "synthesis")
        return not known or name in saved.buffers or weights[name].numel() <= 1

    if ANCHORS[1] not in weights:
        return stylegan2_from_nvidia(weights, settings, may_ignore)
    if not settings:
        raise ZeroshiftError(
            "It has the weights of a StyleGAN3 without its settings. Use the .pkl of the program itself."
        )
    return stylegan3_from_nvidia(weights, settings, may_ignore)


def nvidia_weights(saved: SavedGenerator, content: Content) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Parameters and buffers by name, and the published constructor arguments, as far as they were saved.

    For a StyleGAN2, `synthesis_kwargs` also has the attributes of its layers (architecture, activation, conv_clamp), as
    the two programs have different defaults.

    Raises:
        ZeroshiftError: layers that differ in these attributes.
        pickle.UnpicklingError: tensors that do not fit the file.
    """
    given = saved.modules[""]
    arguments = given.get("_init_args") or ()
    if not isinstance(arguments, tuple):
        raise pickle.UnpicklingError("constructor arguments that are no tuple")
    named = dict(zip(_ARGUMENTS, arguments, strict=False)) | (items_of(given.get("_init_kwargs")) or {})
    settings: dict[str, Any] = {key: content.plain(value) for key, value in named.items() if isinstance(key, str)}
    if ANCHORS[0] in saved.values:
        # stylegan3's StyleGAN2 takes flat arguments and clamps by default; stylegan2-ada-pytorch does neither.
        grouped = settings.pop("synthesis_kwargs", None)
        flat = {key: settings.pop(key) for key in list(settings) if key not in _ARGUMENTS}
        common = _common(saved, content)
        settings["synthesis_kwargs"] = (grouped if isinstance(grouped, dict) else {}) | flat | common
    return saved.weights(content), settings


def _common(saved: SavedGenerator, content: Content) -> dict[str, Any]:
    """The common values of attributes in all layers that have them."""
    common: dict[str, Any] = {}
    for path, attributes in saved.modules.items():
        if path.split(".")[0] != "synthesis":
            continue
        for name in _OF_LAYERS:
            value = content.plain(attributes.get(name, "linear"))  # the activation of the affine layers
            if value != "linear" and common.setdefault(name, value) != value:
                raise ZeroshiftError(
                    f"its layers differ in {name} ({common[name]!r:.40}, {value!r:.40}), which is not supported."
                )
    return common
