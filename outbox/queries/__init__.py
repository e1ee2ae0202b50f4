"""Reads for operators: the overview, and the rows of one key.

Every read is bounded and goes through an index, so that looking costs the same on the worst day. Called by the admin,
the dashboard, `manage.py outbox` and the metrics; the flow itself never reads through here.
"""

from outbox.queries.console import Overview, overview
from outbox.queries.depth import COUNT_CAP, OutboxDepth, depth_and_lag
from outbox.queries.keys import list_key_ids, list_neighbours, list_overtaken_ids

__all__ = [
    "COUNT_CAP",
    "OutboxDepth",
    "Overview",
    "depth_and_lag",
    "list_key_ids",
    "list_neighbours",
    "list_overtaken_ids",
    "overview",
]
