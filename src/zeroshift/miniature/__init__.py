"""A small world with known truth: a portrait renderer, its domains and captions, and models trained on it."""
