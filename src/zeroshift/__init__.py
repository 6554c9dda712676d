"""Move a pretrained image generator to a new visual domain from text alone.

    from zeroshift import adapt, preset
    result = adapt(preset("miniature", target="zombie"))

Names are imported when they are first used, so that `import zeroshift` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import AdaptConfig, AdaptStage, PromptStage, preset
    from .encoder import Encoder, load_encoder
    from .errors import ZeroshiftError
    from .evaluation import Evaluation, References, evaluate
    from .generators import export_generator, load_generator, save_generator
    from .generators.base import Generator
    from .runs import RunFolder
    from .sampling import blend_weights, generate, walk
    from .trainer import AdaptResult, adapt

__all__ = [
    "AdaptConfig",
    "AdaptResult",
    "AdaptStage",
    "Encoder",
    "Evaluation",
    "Generator",
    "PromptStage",
    "References",
    "RunFolder",
    "ZeroshiftError",
    "adapt",
    "blend_weights",
    "evaluate",
    "export_generator",
    "generate",
    "load_encoder",
    "load_generator",
    "preset",
    "save_generator",
    "walk",
]

_MODULES = {
    "config": ("AdaptConfig", "AdaptStage", "PromptStage", "preset"),
    "encoder": ("Encoder", "load_encoder"),
    "errors": ("ZeroshiftError",),
    "evaluation": ("Evaluation", "References", "evaluate"),
    "generators": ("export_generator", "load_generator", "save_generator"),
    "generators.base": ("Generator",),
    "runs": ("RunFolder",),
    "sampling": ("blend_weights", "generate", "walk"),
    "trainer": ("AdaptResult", "adapt"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
