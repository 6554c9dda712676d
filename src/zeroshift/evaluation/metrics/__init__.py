"""Measures as pure functions of features, and the registry of those that `zeroshift evaluate` offers."""
