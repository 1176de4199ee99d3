"""Networks by their settings: who builds them, what they know, how their weights are found."""

from limbeck.sources.opening import check_network, describe, open_network, untrained

__all__ = ["check_network", "describe", "open_network", "untrained"]
