"""Atomic writes, images, downloads and labeled rows of images."""
