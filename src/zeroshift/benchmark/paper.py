"""The protocol of IPL's paper (Guo et al., CVPR 2023), as far as our measures repeat it."""

from zeroshift.benchmark.plan import DomainPair

__all__ = ["METHODS", "METRICS", "PAIRS", "PRESET"]

PRESET = "published"
METHODS = ("nada", "ipl")
METRICS = ("is", "sifid", "scs:hed", "id")
_FFHQ, _DOG = "ffhq", "afhqdog"  # 1024 and 512 pixels
PAIRS = (
    *(DomainPair(_FFHQ, "photo", target) for target in ("disney", "anime painting", "wall painting", "ukiyo-e")),
    *(DomainPair(_FFHQ, "human", target) for target in ("pixar character", "tolkien elf", "werewolf")),
    *(DomainPair(_DOG, "photo", target) for target in ("cartoon", "pointillism", "cubism")),
)
