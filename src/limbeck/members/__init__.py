"""Who takes part in a method: networks that look at the images, and others that look at what networks computed."""

from limbeck.members.derived import Ensemble, Look
from limbeck.members.frozen import Frozen
from limbeck.members.lending import lend
from limbeck.members.member import Member
from limbeck.members.network import Network, prepared
from limbeck.members.statistics import STATISTICS, Statistics

__all__ = ["STATISTICS", "Ensemble", "Frozen", "Look", "Member", "Network", "Statistics", "lend", "prepared"]
