"""The bi-level search of any method's weights, and what it looks through."""

from limbeck.search.companion import Order, Search

__all__ = ["Order", "Search"]
