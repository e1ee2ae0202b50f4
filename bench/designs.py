"""Three ways to find what is to be published, as SQL: what bench/one_or_two_tables.py compares. Pure."""

from dataclasses import dataclass, replace

TABLE = "agent_outbox_messages"
_SENT_COLUMNS = "event_id, biz_type, topic, message_key, payload, retry_count, traceparent, created_at, published_at"
_FREE = "(lease_until IS NULL OR lease_until <= %(now)s)"
_INSERT = (
    f"INSERT INTO {TABLE} (event_id, biz_type, topic, message_key, payload, status, shard, ready_shard, retry_count,"
    " max_retry, request_id, traceparent, published_by, consumed_by, discard_reason, created_at, updated_at) VALUES"
    " (%(event_id)s, 'chat.history.persist', 'agent.outbox', %(key)s, %(payload)s, 'pending', %(shard)s, {ready}, 0,"
    " 20, %(request_id)s, '', '', '', '', %(now)s, %(now)s)"
)
_PUBLISHED = (
    f"UPDATE {TABLE} SET status = 'published', published_at = %(now)s, published_by = 'relay-0', ready_shard = NULL,"
    " claim_token = NULL, lease_until = NULL, updated_at = %(now)s WHERE id IN %(ids)s{fence}"
)
# The UPDATE takes only what is still free: the rows were read without a lock.
_TAKE = (
    f"UPDATE {TABLE} SET claim_token = %(token)s, lease_until = %(until)s, updated_at = %(now)s WHERE id IN %(ids)s"
    f" AND {_FREE} AND {{still}}"
)
CONSUMED = (
    f"UPDATE {TABLE} SET status = 'consumed', consumed_at = %(now)s, consumed_by = 'consumer', ready_shard = NULL,"
    " claim_token = NULL, lease_until = NULL, updated_at = %(now)s WHERE id IN %(ids)s"
    " AND status NOT IN ('consumed', 'dead')"
)
READY_TABLE = (
    "CREATE TABLE ready (id BIGINT NOT NULL PRIMARY KEY, shard SMALLINT UNSIGNED NOT NULL, claim_token VARCHAR(36),"
    " lease_until DATETIME(6), next_retry_at DATETIME(6), KEY idx_ready_shard (shard, id)) ENGINE = InnoDB"
)
READY_TRIGGER = (
    f"CREATE TRIGGER into_ready AFTER INSERT ON {TABLE} FOR EACH ROW INSERT INTO ready (id, shard) SELECT NEW.id,"
    " NEW.shard FROM DUAL WHERE NEW.status = 'pending'"
)


@dataclass(frozen=True, kw_only=True)
class Design:
    """The statements of one way; an append and a settle may be several. `read` fetches what `candidates` left out."""

    name: str
    prepare: tuple[str, ...]
    append: tuple[str, ...]
    candidates: str
    read: str = ""
    take: str
    settle: tuple[str, ...]
    # what the server makes of `candidates` without being told an index; timed once
    unforced: str = ""
    # after rows were made pending in bulk
    load: tuple[str, ...] = ()


INDEX = Design(
    name="one table, (ready_shard, id)",
    prepare=(),
    append=(_INSERT.format(ready="%(shard)s"),),
    candidates=(
        f"SELECT id, {_SENT_COLUMNS} FROM {TABLE} WHERE {_FREE} AND ready_shard BETWEEN 0 AND 63"
        " ORDER BY ready_shard, id LIMIT %(limit)s"
    ),
    take=_TAKE.format(still="ready_shard IS NOT NULL"),
    settle=(_PUBLISHED.format(fence=" AND claim_token = %(token)s"),),
)
LOCKING = replace(
    INDEX,
    name="one table, (ready_shard, id), FOR UPDATE SKIP LOCKED",
    candidates=f"{INDEX.candidates} FOR UPDATE SKIP LOCKED",
)
_BY_STATUS = (
    f"SELECT id, {_SENT_COLUMNS} FROM {TABLE}{{hint}} WHERE {_FREE}"
    " AND (next_retry_at IS NULL OR next_retry_at <= %(now)s)"
    " AND status = 'pending' AND id > 0 ORDER BY id LIMIT %(limit)s"
)
STATUS = Design(
    name="one table, (status, id) forced",
    prepare=(
        f"ALTER TABLE {TABLE} DROP INDEX idx_outbox_ready, DROP CONSTRAINT outbox_claim_is_ready,"
        " DROP CONSTRAINT outbox_ready_is_pending",
    ),
    append=(_INSERT.format(ready="NULL"),),
    candidates=_BY_STATUS.format(hint=" FORCE INDEX (idx_outbox_status_id)"),
    unforced=_BY_STATUS.format(hint=""),
    take=_TAKE.format(still="status = 'pending'"),
    settle=INDEX.settle,
)
HOT_TABLE = Design(
    name="hot table beside it",
    # retries wait in the hot table, so that index goes with the claim's
    prepare=(f"ALTER TABLE {TABLE} DROP INDEX idx_outbox_status_next", READY_TABLE),
    append=(_INSERT.format(ready="NULL"), "INSERT INTO ready (id, shard) VALUES (LAST_INSERT_ID(), %(shard)s)"),
    candidates=f"SELECT id FROM ready WHERE {_FREE} AND shard BETWEEN 0 AND 63 ORDER BY shard, id LIMIT %(limit)s",
    read=f"SELECT id, {_SENT_COLUMNS} FROM {TABLE} WHERE id IN %(ids)s",
    take="UPDATE ready SET claim_token = %(token)s, lease_until = %(until)s WHERE id IN %(ids)s AND " + _FREE,
    settle=("DELETE FROM ready WHERE id IN %(ids)s AND claim_token = %(token)s", _PUBLISHED.format(fence="")),
    load=(f"INSERT INTO ready (id, shard) SELECT id, shard FROM {TABLE} WHERE id > %(after)s",),
)
# the first is the product's table as it is; each next one takes away what it does not need
DESIGNS = (INDEX, LOCKING, STATUS, HOT_TABLE)
