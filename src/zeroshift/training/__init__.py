"""The adapt stage, the trainer and the run folder."""
