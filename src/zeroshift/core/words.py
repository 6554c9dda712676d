"""English grammar for texts that are put together from labels."""

__all__ = ["article"]


def article(noun: str) -> str:
    """The indefinite article: "an elf", "a person"."""
    return "an" if noun[:1].lower() in "aeiou" else "a"
