"""Generator files: ours, those of other programs, and the catalogue of known generators."""
