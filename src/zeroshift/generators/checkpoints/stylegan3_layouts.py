"""Converts NVIDIA's StyleGAN3 weights to our generator."""

import warnings
from collections.abc import Callable
from collections.abc import Mapping as MappingType
from typing import Any

import torch
from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.generators.checkpoints.claims import listed
from zeroshift.generators.stylegan.stylegan3 import StyleGAN3

__all__ = ["stylegan3_from_nvidia"]

_OUR_NAMES = {
    "img_resolution": "resolution",
    "c_dim": "num_classes",
    "use_radial_filters": "radial",
    "mapping_kwargs.num_layers": "mapping_layers",
    "mapping_kwargs.lr_multiplier": "mapping_lr_mul",
}

_ONLY_TRAINING_READS = {"magnitude_ema_beta", "num_fp16_res"} | {
    f"mapping_kwargs.{name}" for name in ("w_avg_beta", "freeze_layers", "freeze_embed")
}

_FILTERS = (".up_filter", ".down_filter")

_MAY_BE_MISSING = ("mapping.w_avg", ".transform", ".magnitude_ema", *_FILTERS)


def stylegan3_from_nvidia(
    state_dict: MappingType[str, Tensor],
    init_kwargs: MappingType[str, Any],
    may_ignore: Callable[[str], bool] = lambda name: False,
) -> StyleGAN3:
    """A StyleGAN3 with NVIDIA's weights, in evaluation mode.

    Args:
        state_dict: parameters and buffers by name. The input transform, the magnitudes and the filters may be missing
            and then have their initial values. A missing w_avg is estimated.
        init_kwargs: the published constructor arguments (z_dim, c_dim, w_dim, img_resolution, mapping_kwargs, ...).
        may_ignore: for which unknown weights a warning is enough.

    Raises:
        ZeroshiftError: settings or weights that do not belong to a StyleGAN3.
    """
    config = _config(init_kwargs)
    weights = {name: torch.as_tensor(value) for name, value in state_dict.items()}
    expected = _all_shapes(config)
    ignored = [name for name in weights if name not in expected and may_ignore(name)]
    if ignored:
        warnings.warn(f"Left out what a StyleGAN3 does not have: {listed(ignored)}.", stacklevel=2)
        weights = {name: value for name, value in weights.items() if name not in ignored}
    missing = [name for name in expected if name not in weights and not name.endswith(_MAY_BE_MISSING)]
    unfit = [name for name, value in weights.items() if expected.get(name) != value.shape]
    if missing or unfit:
        raise ZeroshiftError(
            f"These weights do not fit a StyleGAN3 with these settings: {len(missing)} are missing, {len(unfit)} "
            f"unknown or of another size (for example {(missing + unfit)[0]}). Is it another kind of generator?"
        )
    generator = StyleGAN3(**config)
    for name, value in generator.named_buffers():
        if name.endswith(_FILTERS) and name in weights and not (weights[name] - value).abs().max() <= 1e-5:
            raise ZeroshiftError(f"This StyleGAN3 has other filters ({name}), which are not supported.")
    generator.load_state_dict({name: weights.get(name, value) for name, value in generator.state_dict().items()})
    if "mapping.w_avg" not in weights:
        generator.mapping.w_avg.copy_(generator.average_w())
    return generator.eval()


def _config(init_kwargs: MappingType[str, Any]) -> dict[str, Any]:
    """Our constructor arguments from the published ones."""
    settings = dict(init_kwargs)
    mapping_kwargs = settings.pop("mapping_kwargs", {})
    if not isinstance(mapping_kwargs, dict):
        raise ZeroshiftError("Its mapping_kwargs are not a dictionary.")
    settings |= {f"mapping_kwargs.{name}": value for name, value in mapping_kwargs.items()}
    if settings.pop("img_channels", 3) != 3:
        raise ZeroshiftError(f"It has {init_kwargs['img_channels']!r:.20} color channels; zeroshift needs 3.")
    return {_OUR_NAMES.get(key, key): value for key, value in settings.items() if key not in _ONLY_TRAINING_READS}


def _all_shapes(config: MappingType[str, Any]) -> dict[str, torch.Size]:
    """Shapes of all parameters and buffers, filters included, without allocating any."""
    try:
        with torch.device("meta"):
            network = StyleGAN3.from_config(config)
    except ZeroshiftError as error:
        raise ZeroshiftError(f"The settings of this generator do not belong to a StyleGAN3: {error}") from error
    return {name: value.shape for name, value in {**network.state_dict(), **dict(network.named_buffers())}.items()}
