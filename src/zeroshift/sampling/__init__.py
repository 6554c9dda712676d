"""Samples, data sets of pairs, and films."""
