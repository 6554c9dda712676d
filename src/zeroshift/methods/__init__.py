"""Adaptation methods: each decides the text direction and further losses of an image pair.

A method is a subclass of `base.Method` that is registered in `registry.METHODS`; see docs/extending/method.md.
"""
