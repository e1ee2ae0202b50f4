"""The admin's pages of users, sessions, task classes and repeated writes on MariaDB: they read a page, no more."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from smartflow.accounts.models import TokenSession, User
from smartflow.api.models import IdempotencyRecord
from smartflow.kernel.clock import utc_now
from smartflow.kernel.ids import new_uuid
from tasks.contracts import ClassMode
from tasks.models import TaskClass
from tests.admin_rows import operator_client
from tests.services.test_mariadb_tasks import plans, rows_read

pytestmark = [
    pytest.mark.services,
    pytest.mark.django_db(transaction=True),  # ANALYZE TABLE commits
    pytest.mark.skipif(connection.vendor != "mysql", reason="DATABASE_URL names no MariaDB"),
]
USERS, SESSIONS_EACH, CLASSES_EACH = 3_000, 2, 2
PERMISSIONS = (
    *("accounts.view_user", "accounts.view_tokensession", "tasks.view_taskclass"),
    "edge.view_idempotencyrecord",
)
# 51 rows, as many users and windows, the session and the permissions; the smallest scan would be 3,000.
A_PAGE = 700


@pytest.fixture
def operator(db):
    """Return an operator's client, beside many users with sessions and classes; of each kind some stand out."""
    client, now = operator_client(*PERMISSIONS), utc_now()
    User.objects.bulk_create(
        [User(username=f"u{number}", password="x", is_active=number % 50 != 0) for number in range(USERS)],
        batch_size=1000,
    )
    users = list(User.objects.exclude(username="operator"))
    TokenSession.objects.bulk_create(
        (
            TokenSession(
                id=new_uuid(),
                user=user,
                refresh_jti="j",
                created_at=now,
                refreshed_at=now,
                expires_at=now + timedelta(seconds=number % 100 - 98.5, minutes=5 if number % 100 == 99 else 0),
            )
            for number, user in enumerate(users * SESSIONS_EACH)
        ),
        batch_size=1000,
    )
    TaskClass.objects.bulk_create(
        (
            TaskClass(
                user=user,
                name="n",
                mode=ClassMode.AUTO if number % 60 == 0 else ClassMode.MANUAL,
                start_date=now.date(),
                end_date=now.date(),
                created_at=now,
                updated_at=now,
            )
            for number, user in enumerate(users * CLASSES_EACH)
        ),
        batch_size=1000,
    )
    IdempotencyRecord.objects.bulk_create(
        (
            IdempotencyRecord(
                user_id=user.pk,
                key=f"k{number}",
                fingerprint="f",
                token="t",
                lease_until=now,
                expires_at=now + timedelta(hours=number % 48 - 24, minutes=30),
            )
            for number, user in enumerate(users)
        ),
        batch_size=1000,
    )
    with connection.cursor() as cursor:
        for table in ("users", "token_sessions", "task_classes", "idempotency_records"):
            cursor.execute(f"ANALYZE TABLE {table}")
            cursor.fetchall()
    return client


# Each list, search and filter with the table that it reads and the index that answers it.
LISTS = {
    "accounts/user/": ("users", "PRIMARY"),
    "accounts/user/?q=u29": ("users", "username"),
    "accounts/user/?q=operator": ("users", "username"),
    "accounts/user/?state=locked": ("users", "idx_user_active"),
    "accounts/user/?state=staff": ("users", "idx_user_staff"),
    "accounts/tokensession/": ("token_sessions", "idx_session_user_created"),
    "accounts/tokensession/?state=live": ("token_sessions", "idx_session_expires"),
    "accounts/tokensession/?state=expired": ("token_sessions", "idx_session_expires"),
    "accounts/tokensession/?q=u77": ("token_sessions", "idx_session_user_created"),
    "tasks/taskclass/": ("task_classes", "PRIMARY"),
    "tasks/taskclass/?mode=auto": ("task_classes", "idx_task_class_mode"),
    "tasks/taskclass/?mode=manual": ("task_classes", "idx_task_class_mode"),
    "tasks/taskclass/?q=u77": ("task_classes", "task_classes_user_id"),
    "edge/idempotencyrecord/": ("idempotency_records", "PRIMARY"),
    "edge/idempotencyrecord/?q=u77": ("idempotency_records", "uq_idempotency_user_key"),
    "edge/idempotencyrecord/?kept=yes": ("idempotency_records", "idx_idempotency_expires"),
    "edge/idempotencyrecord/?kept=no": ("idempotency_records", "idx_idempotency_expires"),
}


def test_lists_searches_and_filters_are_answered_by_an_index_on_each_page(operator):
    for url, (table, index) in LISTS.items():
        operator.get(f"/admin/{url}")
        with CaptureQueriesContext(connection) as captured:
            response, touched = rows_read(lambda url=url: operator.get(f"/admin/{url}"))
        page = response.context["cl"]
        assert page.result_list, url
        assert touched < A_PAGE, (url, touched)
        lines = [line for line in plans(captured, rf"^SELECT.*FROM `{table}`") if line["table"] == table]
        assert any((line["key"] or "").startswith(index) for line in lines), (url, lines)
        assert not [line for line in lines if line["type"] == "ALL"], (url, lines)

        if page.next_page:
            address = f"/admin/{url.partition('?')[0]}{page.next_page}"
            response, touched = rows_read(lambda address=address: operator.get(address))
            assert response.context["cl"].result_list, address
            assert touched < A_PAGE, (address, touched)
