"""The renderer, its factors and domains."""
