"""The bare comparison: the task views in Django without middleware, REST framework, ORM or cache, on the same rows.

It decodes the token, asks for the session and its user in one query, and then reads or writes what the product's view
reads or writes, by the SQL that it takes at least: a create is a kept answer, a revision, a task and an event. It
checks nothing of a body, refuses nothing but a bad token, limits nobody, knows one language and logs nothing.

Database settings, time zone and secrets are the product's own, and so is the server's command.
"""

import hashlib
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import django
import jwt
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path

from smartflow import settings as product

settings.configure(
    DATABASES=product.DATABASES,
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[],
    INSTALLED_APPS=[],
    SECRET_KEY=product.SECRET_KEY,
    TIME_ZONE=product.TIME_ZONE,
    USE_TZ=True,
    USE_I18N=False,
)
django.setup()

_COLUMNS = (
    "id, user_id, title, priority, estimated_sections, is_completed, deadline_at, urgency_threshold_at, completed_at,"
    " created_at"
)
_SESSION = (
    "SELECT s.user_id, s.revoked_at, s.expires_at, u.is_active, u.time_zone FROM token_sessions s"
    " JOIN users u ON u.id = s.user_id WHERE s.id = %s"
)
_PROMOTIONS = {2: 1, 4: 3}
_KEPT = timedelta(hours=24)
Row = tuple[Any, ...]


def show_list(request: HttpRequest) -> HttpResponse:
    """Answer all tasks, or the first page of them, the oldest first."""
    now = datetime.now(UTC)
    with connection.cursor() as cursor:
        user_id, zone = _who(cursor, request, now)
        limit = f" LIMIT {int(request.GET['limit']) + 1}" if request.GET else ""
        cursor.execute(
            f"SELECT {_COLUMNS} FROM tasks WHERE user_id = %s AND deleted_at IS NULL ORDER BY created_at, id{limit}",
            [user_id],
        )
        rows = list(cursor.fetchall())
    more = bool(limit) and len(rows) > int(request.GET["limit"])
    if more:
        rows.pop()
    response = _answer([_shown(row, zone, now) for row in rows])
    if more:
        micros = (rows[-1][-1].replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        response["X-Next-Cursor"] = f"created~{micros}~{rows[-1][0]}"
    return response


def create(request: HttpRequest) -> HttpResponse:
    """Add a task, tell so, and keep the answer."""
    now = datetime.now(UTC)
    wanted = json.loads(request.body)
    with connection.cursor() as cursor:
        user_id, zone = _who(cursor, request, now)
        record = _claim(cursor, request, user_id, now)
        deadline = datetime.fromisoformat(wanted["deadline_at"]).astimezone(UTC)
        threshold = deadline - timedelta(hours=24)
        with transaction.atomic():
            _take_revision(cursor, user_id)
            cursor.execute(
                "INSERT INTO tasks (user_id, title, priority, estimated_sections, is_completed, deadline_at,"
                " urgency_threshold_at, created_at, updated_at) VALUES (%s, %s, %s, %s, 0, %s, %s, %s, %s)",
                [
                    *(user_id, wanted["title"], wanted["priority_group"], wanted["estimated_sections"]),
                    *(_naive(deadline), _naive(threshold), _naive(now), _naive(now)),
                ],
            )
            row = (
                *(cursor.lastrowid, user_id, wanted["title"], wanted["priority_group"], wanted["estimated_sections"]),
                *(False, _naive(deadline), _naive(threshold), None, _naive(now)),
            )
            _tell(cursor, "task.item.created", row, now)
            return _keep(cursor, record, _answer(_shown(row, zone, now)))


def complete(request: HttpRequest) -> HttpResponse:
    """Tick a task off, tell so, and keep the answer."""
    now = datetime.now(UTC)
    task_id = json.loads(request.body)["task_id"]
    with connection.cursor() as cursor:
        user_id, zone = _who(cursor, request, now)
        record = _claim(cursor, request, user_id, now)
        with transaction.atomic():
            _take_revision(cursor, user_id)
            cursor.execute(
                f"SELECT {_COLUMNS} FROM tasks WHERE id = %s AND user_id = %s AND deleted_at IS NULL",
                [task_id, user_id],
            )
            row = cursor.fetchone()
            done_at = row[8]
            if done_at is None:
                done_at = _naive(now)
                cursor.execute(
                    "UPDATE tasks SET is_completed = 1, completed_at = %s, updated_at = %s WHERE id = %s",
                    [done_at, done_at, task_id],
                )
                _tell(cursor, "task.item.completed", (*row[:5], True, *row[6:8], done_at, row[9]), now)
            body = {
                "task_id": task_id,
                "is_completed": True,
                "already_completed": row[8] is not None,
                "status": "completed",
                "completed_at": _moment(done_at, zone),
            }
            return _keep(cursor, record, _answer(body))


def _who(cursor: Any, request: HttpRequest, now: datetime) -> tuple[int, ZoneInfo]:
    token = request.headers["Authorization"].removeprefix("Bearer ")
    claims = jwt.decode(token, product.JWT_ACCESS_SECRET, algorithms=["HS256"])
    cursor.execute(_SESSION, [claims["sid"]])
    user_id, revoked_at, expires_at, is_active, zone = cursor.fetchone()
    if revoked_at is not None or expires_at <= _naive(now) or not is_active or user_id != claims["user_id"]:
        raise PermissionError
    return user_id, ZoneInfo(zone or settings.TIME_ZONE)


def _claim(cursor: Any, request: HttpRequest, user_id: int, now: datetime) -> int:
    fingerprint = hashlib.sha256(f"{request.method}{request.path}".encode() + request.body).hexdigest()
    cursor.execute(
        "INSERT INTO idempotency_records (user_id, `key`, fingerprint, token, lease_until, expires_at, status, body)"
        " VALUES (%s, %s, %s, %s, %s, %s, NULL, '')",
        [
            *(user_id, request.headers["X-Idempotency-Key"], fingerprint, str(uuid.uuid4())),
            *(_naive(now + timedelta(seconds=30)), _naive(now + _KEPT)),
        ],
    )
    return int(cursor.lastrowid)


def _keep(cursor: Any, record: int, answer: HttpResponse) -> HttpResponse:
    cursor.execute(
        "UPDATE idempotency_records SET status = 200, body = %s WHERE id = %s AND status IS NULL",
        [answer.content.decode(), record],
    )
    return answer


def _take_revision(cursor: Any, user_id: int) -> None:
    cursor.execute(
        "INSERT INTO task_revisions (user_id, revision) VALUES (%s, %s)"
        " ON DUPLICATE KEY UPDATE revision = VALUES(revision)",
        [user_id, str(uuid.uuid4())],
    )


def _tell(cursor: Any, kind: str, row: Row, now: datetime) -> None:
    event_id, key = str(uuid.uuid4()), f"user:{row[1]}"
    names = ("task_id", "user_id", "title", "priority", "estimated_sections", "is_completed")
    moments = {"deadline_at": row[6], "urgency_threshold_at": row[7]}
    payload = {
        **dict(zip(names, row, strict=False)),
        **{name: _moment(value, ZoneInfo("UTC")) for name, value in moments.items()},
        "is_deleted": False,
        "changed": ["completed_at", "is_completed"],
        "occurred_at": now.isoformat(),
    }
    stored = {"event_id": event_id, "event_type": kind, "event_version": 1, "aggregate_id": key, "payload": payload}
    cursor.execute(
        "INSERT INTO agent_outbox_messages (event_id, biz_type, topic, message_key, payload, status, shard,"
        " ready_shard, retry_count, max_retry, request_id, traceparent, published_by, consumed_by, discard_reason,"
        " created_at, updated_at) VALUES (%s, %s, 'bench', %s, %s, 'pending', 0, 0, 0, 20, '', '', '', '', '', %s, %s)",
        [event_id, kind, key, json.dumps(stored, ensure_ascii=False), _naive(now), _naive(now)],
    )


def _shown(row: Row, zone: ZoneInfo, now: datetime) -> dict[str, Any]:
    task_id, user_id, title, priority, sections, is_completed, deadline_at, threshold_at, completed_at, created_at = row
    if threshold_at and not is_completed and threshold_at <= _naive(now):
        priority = _PROMOTIONS.get(priority, priority)
    deadline = _moment(deadline_at, zone)
    body = {
        "id": task_id,
        "user_id": user_id,
        "title": title,
        "priority_group": priority,
        "estimated_sections": sections,
        "status": "completed" if is_completed else "incomplete",
        "is_completed": bool(is_completed),
        "deadline": deadline[:19].replace("T", " ") if deadline else "",
        "deadline_at": deadline,
        "completed_at": _moment(completed_at, zone),
        "created_at": _moment(created_at, zone),
    }
    if threshold_at:
        body["urgency_threshold_at"] = _moment(threshold_at, zone)
    return body


def _moment(value: datetime | None, zone: ZoneInfo) -> str | None:
    return value.replace(tzinfo=UTC).astimezone(zone).isoformat() if value else None


def _naive(value: datetime) -> datetime:
    """Return the moment as raw SQL takes it: UTC without a zone."""
    return value.replace(tzinfo=None)


def _answer(data: Any) -> HttpResponse:
    body = json.dumps({"status": "10000", "info": "success", "data": data}, ensure_ascii=False, separators=(",", ":"))
    return HttpResponse(body, content_type="application/json")


urlpatterns = [
    path("api/v1/task/get", show_list),
    path("api/v1/task/create", create),
    path("api/v1/task/complete", complete),
]
application = get_asgi_application()
