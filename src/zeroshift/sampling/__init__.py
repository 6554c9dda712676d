"""Samples, films, inversion of real images, and translation."""
