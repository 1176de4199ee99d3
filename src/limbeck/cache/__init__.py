"""Outputs of frozen networks, stored once by sample and view, read ever after.

`rows` says what is stored of a view, `shards` how rows lie on disk, `store` whose they are; `remembered` puts a stored
network in the place of a frozen one, `choosing` says which of a job's can be, `filling` computes all views ahead.
"""

from limbeck.cache.choosing import Remembering, memory, remember
from limbeck.cache.remembered import Remembered, keep, turn_over
from limbeck.cache.rows import Row
from limbeck.cache.store import Cache

__all__ = ["Cache", "Remembered", "Remembering", "Row", "keep", "memory", "remember", "turn_over"]
