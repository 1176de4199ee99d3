"""Layers by name: which a network has, what they hold, and how they are read without edits to the network."""

from limbeck.taps.reading import Address, Reader, answer, clean_copy

__all__ = ["Address", "Reader", "answer", "clean_copy"]
