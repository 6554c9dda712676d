"""Diffusion models and diffusion autoencoders as generators."""
