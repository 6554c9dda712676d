"""Architectures and files of the miniature encoders and of the attribute probe."""
