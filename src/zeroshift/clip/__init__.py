"""Guidance encoders, prompts, losses and augmentations."""
