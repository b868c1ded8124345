"""What a worker of a cluster leaves beside a shard that it has merged."""

from dataclasses import dataclass

from mergeplan.merging.manifest import Xxh3

RECORD_OF_SHARD = "record.json"


@dataclass(frozen=True)
class ShardRecord:
    """The shard is there, durable and whole.

    Attributes:
        hashes: Content hash of each of its tensors.
        inputs: Hash of all that each job read, by its tensor.
    """

    hashes: dict[str, Xxh3]
    inputs: dict[str, Xxh3]
