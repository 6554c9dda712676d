"""Registries, reproducible random numbers, distributed processes, dtypes, batches that fit memory."""
