"""The faults of the troubleshooting page, each made by a function."""

from tests.support.troubles import configs, merges, models
from tests.support.troubles.bench import PRODUCERS, Bench

__all__ = ["PRODUCERS", "Bench", "configs", "merges", "models"]
