"""Feature networks for measures and the identity loss."""
