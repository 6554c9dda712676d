"""Seeded fuzzing of every reader of the package: `python -m tests.fuzz --help`."""
