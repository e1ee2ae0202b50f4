"""Which earlier row of a key must be over before its later ones. Called by dispatch, inside its transaction.

However many rows of a key are dead, or are held behind one that is: few of them are read.
"""

from collections.abc import Iterable, Mapping, Sequence

from django.db import connection

from outbox.registry import blocking_types

# Of each key, entered by its newest row at hand, the first row of each kind that is not at hand. Nothing is said about
# where to stop, because MariaDB would not stop there: it would read all that is held behind. The index is named,
# because it would read the rows by primary key now and then; `+ 0` keeps MySQL 8 from entering the index for every gap
# of the list.
_FIRST = (
    "(SELECT id FROM agent_outbox_messages AS {status} {by_key} WHERE {status}.message_key = newest.message_key"
    " AND {status}.status = '{status}'{others} ORDER BY id LIMIT 1)"
)
_FIRSTS = (
    "SELECT newest.id, newest.message_key, {pending}, {published}, {dead} FROM agent_outbox_messages AS newest"
    " WHERE newest.id IN ({newest})"
)
# Which dead rows block is not in the index of keys. Where these keys have many that do not, of a type that lets later
# rows pass or given up, it is cheaper to read what blocks anywhere.
_DEAD_OF_KEYS = (
    "SELECT message_key, id, discarded_at IS NULL AND biz_type IN ({types}) FROM agent_outbox_messages {by_key}"
    " WHERE message_key IN ({keys}) AND status = 'dead' LIMIT %s"
)
_DEAD_ANYWHERE = (
    "SELECT message_key, id, 1 FROM agent_outbox_messages {by_state} WHERE status = 'dead' AND next_retry_at IS NULL"
    " AND biz_type IN ({types}) AND discarded_at IS NULL AND message_key IN ({keys})"
)
_BY_KEY = {"mysql": "FORCE INDEX (idx_outbox_key_status)", "sqlite": "INDEXED BY idx_outbox_key_status"}
_BY_STATE = {"mysql": "FORCE INDEX (idx_outbox_status_next)", "sqlite": "INDEXED BY idx_outbox_status_next"}
DEAD_OF_KEYS = 1000


def first_unfinished(*, newest: Mapping[str, int], at_hand: Sequence[int]) -> dict[str, int]:
    """
    Return, for each key that has one, its first row that must be over before later ones, but for those at hand.

    Shape: `newest`: key → its newest row at hand; an answer may be newer still.
    """
    by_key, others = _BY_KEY[connection.vendor], f" AND id + 0 NOT IN ({_marks(at_hand)})"
    sql = _FIRSTS.format(
        pending=_FIRST.format(status="pending", by_key=by_key, others=others),
        published=_FIRST.format(status="published", by_key=by_key, others=others),
        dead=_FIRST.format(status="dead", by_key=by_key, others=""),
        newest=_marks(newest),
    )
    first: dict[str, int] = {}
    buried: list[str] = []
    with connection.cursor() as cursor:
        cursor.execute(sql, [*at_hand, *at_hand, *newest.values()])
        for pk, key, pending, published, dead in cursor.fetchall():
            if unfinished := [one for one in (pending, published) if one is not None]:
                first[key] = min(unfinished)
            if dead is not None and dead < pk:
                buried.append(key)
    for key, pk in _blocking(buried):
        first[key] = min(pk, first.get(key, pk))
    return first


def _blocking(keys: Sequence[str]) -> Iterable[tuple[str, int]]:
    """Return the dead rows that hold these keys back."""
    types = list(blocking_types())
    if not keys or not types:
        return []
    with connection.cursor() as cursor:
        parts = {"types": _marks(types), "keys": _marks(keys)}
        by_key = _DEAD_OF_KEYS.format(by_key=_BY_KEY[connection.vendor], **parts)
        cursor.execute(by_key, [*types, *keys, DEAD_OF_KEYS + 1])
        found = cursor.fetchall()
        if len(found) > DEAD_OF_KEYS:
            cursor.execute(_DEAD_ANYWHERE.format(by_state=_BY_STATE[connection.vendor], **parts), [*types, *keys])
            found = cursor.fetchall()
    return [(key, pk) for key, pk, is_blocking in found if is_blocking]


def _marks(values: Iterable[object]) -> str:
    return ", ".join("%s" for _ in values)
