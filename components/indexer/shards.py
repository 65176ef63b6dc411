"""The division of a catalogue into shards by a digest of the item id, each with an index of its own."""

from typing import NamedTuple

from components.digests import partition_of
from ndr_client import served


class Shard(NamedTuple):
    """One shard of a catalogue.

    Attributes:
        number: from 0.
        of: the number of shards.
    """

    number: int
    of: int

    def has(self, item: bytes) -> bool:
        """Return whether an item is in it."""
        return self.of == 1 or partition_of(item, self.of) == self.number

    def name(self, component: str) -> str:
        """Return the name of its index or retriever, given that of an undivided one."""
        return served.shard_names(component, self.of)[self.number]


WHOLE = Shard(0, 1)


def shards_of(number: int) -> list[Shard]:
    """Return all shards of a catalogue."""
    return [Shard(index, number) for index in range(number)]
