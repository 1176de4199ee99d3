"""Data: sources of images and maps, splits held in memory or streamed, and fast batches of them."""

from limbeck.data.augment import Augmentation, Change, Views
from limbeck.data.batches import Batches
from limbeck.data.dataset import Data, Statistics
from limbeck.data.images import AnyChange, Split, hold_out
from limbeck.data.joint import Joint
from limbeck.data.mixing import Mixing
from limbeck.data.opening import open_data
from limbeck.data.repertoire import EveryView, Repertoire, SomeViews, views_of
from limbeck.data.sources import SOURCES
from limbeck.data.strong import Strong

__all__ = ["SOURCES", "AnyChange", "Augmentation", "Batches", "Change", "Data", "EveryView", "Joint", "Mixing",
           "Repertoire", "SomeViews", "Split", "Statistics", "Strong", "Views", "hold_out", "open_data", "views_of"]
