"""Maintainers' recipes: one per model of the miniature world."""
