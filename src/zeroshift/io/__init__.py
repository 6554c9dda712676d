"""Atomic writes, images, downloads and labelled rows of images."""
