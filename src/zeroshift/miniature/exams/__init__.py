"""Measurements of the miniature models, and of adapted generators against the truth."""
