"""How closely runs of some steps can be compared on this processor.

Adam's first steps are the signs of gradients, and directions between equal images are 0/0, so rounding noise grows
within a few steps. On Intel processors the recordings and the naive twins are met to the strict bounds. On an AMD EPYC
(Zen 4) they are not, and some tests passed in one run and failed in another; why is not known yet, and this is no cure.
"""

from pathlib import Path

_CPU = Path("/proc/cpuinfo")
STRICT = not _CPU.exists() or "GenuineIntel" in _CPU.read_text(encoding="utf-8")
SLACK = 1 if STRICT else 30  # times the strict bounds
