"""What the commands do, as functions for Python: `zeroshift.generate`, `translate`, `invert`, `interpolate`, ..."""
