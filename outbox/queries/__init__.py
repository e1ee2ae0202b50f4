"""Reads for operators: the overview and what it says in words, the rows of one key, and the story of one row.

Every read is bounded and goes through an index, so that looking costs the same on the worst day. Called by the admin,
the dashboard, `manage.py outbox` and the metrics; the flow itself never reads through here.
"""

from outbox.queries.console import Overview, kind_of_error, overview
from outbox.queries.depth import COUNT_CAP, OutboxDepth, depth_and_lag
from outbox.queries.keys import (
    KeyStanding,
    get_key_standing,
    list_actions_on,
    list_attempts,
    list_key_ids,
    list_neighbours,
    list_overtaken_ids,
    list_request_ids,
    list_rows,
)
from outbox.queries.under_way import list_under_way
from outbox.queries.verdict import Finding, Place, Severity, is_well, list_troubles

__all__ = [
    "COUNT_CAP",
    "Finding",
    "KeyStanding",
    "OutboxDepth",
    "Overview",
    "Place",
    "Severity",
    "depth_and_lag",
    "get_key_standing",
    "is_well",
    "kind_of_error",
    "list_actions_on",
    "list_attempts",
    "list_key_ids",
    "list_neighbours",
    "list_overtaken_ids",
    "list_request_ids",
    "list_rows",
    "list_troubles",
    "list_under_way",
    "overview",
]
