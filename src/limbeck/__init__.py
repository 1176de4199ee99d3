"""limbeck: distil big vision networks into small ones."""

__version__ = "0.1.0"
