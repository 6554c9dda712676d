"""Move a pretrained image generator to a new visual domain from text alone."""
