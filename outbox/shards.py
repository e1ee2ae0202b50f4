"""A key's share of the work: a stable number, so that several relays take different rows without asking each other.

Pure. The order per key rests on the claim, never on the shards: overlapping relays are slower, not wrong.
"""

from zlib import crc32

# Written into every row: changing it would leave rows with shards that no relay's range covers.
SHARDS = 64


def shard_of(key: str) -> int:
    """Return the shard of a key, 0 to SHARDS - 1, the same in every process and version."""
    return crc32(key.encode()) % SHARDS


def shards_of_slot(slot: int, *, slots: int) -> tuple[int, int]:
    """Return the first and the last shard of one of `slots` relays; the ranges are disjoint and cover every shard."""
    return slot * SHARDS // slots, (slot + 1) * SHARDS // slots - 1
