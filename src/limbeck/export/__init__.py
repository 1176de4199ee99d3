"""What ships: a finished run's student alone, in files that run without limbeck, each checked, and what it costs.

`shipment` is what is written, `formats` are the files, `checking` compares what a file answers with what the network
does, `latency` and `quantised` measure and make small, `told` is the table. `shipping` does all of it.
"""

from limbeck.export.shipping import export

__all__ = ["export"]
