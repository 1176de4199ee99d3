"""How hard each term pulls, at every moment of training.

A process gives every term its weight by the clock: `Scheduled` by a formula, `Learned` by a search, `Replayed` by what
a search recorded. The two latter multiply what the method itself schedules, so that any method's terms can be searched.
"""

from limbeck.process.learned import Learned
from limbeck.process.normalisers import NORMALISERS, biased_l1, biased_softmax, l1, normaliser, sigmoid, softmax
from limbeck.process.recorded import Recorded
from limbeck.process.replayed import Replayed
from limbeck.process.schedules import Blended, Process, Schedule, Scheduled, Without, exponential_ramp, ramp

__all__ = ["NORMALISERS", "Blended", "Learned", "Process", "Recorded", "Replayed", "Schedule", "Scheduled", "Without",
           "biased_l1", "biased_softmax", "exponential_ramp", "l1", "normaliser", "ramp", "sigmoid", "softmax"]
