"""The faults of the troubleshooting page, each made by a function."""

from tests.support.troubles import (
    adapters,
    configs,
    machine,
    merges,
    mismatches,
    models,
    other_tools,
    pools,
    tables,
)
from tests.support.troubles.bench import PRODUCERS, Bench

__all__ = [
    "PRODUCERS",
    "Bench",
    "adapters",
    "configs",
    "machine",
    "merges",
    "mismatches",
    "models",
    "other_tools",
    "pools",
    "tables",
]
