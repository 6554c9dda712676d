"""Griffe extension for the API reference: our docstrings in the strict form of Google style.

Two shorthands of our docstrings are spelled out, so that types are shown and stale parameter names are still reported:

- "source, target: the two labels." becomes one entry for each name;
- a wrapped line under "Raises:" that is not indented continues the entry above it.
"""

import re
from typing import Any

import griffe

GROUP = re.compile(r"^    (\w+(?:, \w+)+)(: .*(?:\n     .*)*)", re.MULTILINE)  # with the lines that continue it
RAISES = re.compile(r"(?<=^Raises:\n)(?:    .*(?:\n|$))+", re.MULTILINE)
CONTINUED = re.compile(r"^    (?! |[\w.]+(?:, [\w.]+)*:(?: |$))", re.MULTILINE)  # neither indented nor an "Error: text"


def spell_out(text: str) -> str:
    """The docstring with one entry for each name of a group, and wrapped lines under "Raises:" indented."""
    text = RAISES.sub(lambda section: CONTINUED.sub("        ", section[0]), text)
    return GROUP.sub(lambda entry: "\n".join(f"    {name}{entry[2]}" for name in entry[1].split(", ")), text)


class Docstrings(griffe.Extension):
    """Applies `spell_out` to every docstring of the package."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = spell_out(obj.docstring.value)
