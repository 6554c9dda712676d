"""Settings of a run, and how they are checked and documented."""
