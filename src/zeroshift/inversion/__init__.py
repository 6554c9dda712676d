"""Inversion of real images: codes and small changes of the weights that make a generator draw a given photo."""
