"""An operator at the admin, in the system's Chromium: watch messages travel, see what blocks a key, give it up."""

import re
import shutil

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.stack import Stack, wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PASSWORD = "operator-journey-9"
# As root, and without a network to look up anything on.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
UNREADABLE = """
from django.utils import timezone
from outbox.models import OutboxMessage
from outbox.shards import shard_of
now, shard = timezone.now(), shard_of("broken-key")
OutboxMessage.objects.create(event_id="broken-1", biz_type="chat.history.persist.requested", topic="t",
    message_key="broken-key", payload="{", shard=shard, ready_shard=shard, created_at=now, updated_at=now)
"""
BLOCKED = """
from django.utils import timezone
from outbox.models import OutboxMessage
from outbox.shards import shard_of
now, shard = timezone.now(), shard_of("blocked-key")
common = {"biz_type": "chat.history.persist.requested", "topic": "t", "message_key": "blocked-key", "payload": "{",
    "shard": shard, "created_at": now, "updated_at": now}
OutboxMessage.objects.create(event_id="blocked-1", status="dead", last_error="ToolFailed: in a test", **common)
OutboxMessage.objects.create(event_id="blocked-2", ready_shard=shard, request_id="req-blocked", **common)
"""
UNBLOCKED = """
from outbox.models import KeyHold, OutboxMessage
OutboxMessage.objects.filter(message_key="blocked-key").delete()
KeyHold.objects.filter(pk="blocked-key").delete()
"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: scripts/services.py install --browser")


@pytest.fixture
def page(stack: Stack):
    """A page signed in as the operator; any request to another host or error in the page fails the test."""
    stack.manage("ensure_admin", SMARTFLOW_ADMIN_PASSWORD=PASSWORD)
    troubles: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(base_url=stack.base_url, viewport={"width": 1400, "height": 900})
        page.set_default_timeout(15_000)
        page.on(
            "request", lambda request: request.url.startswith((stack.base_url, "data:")) or troubles.append(request.url)
        )
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto("/admin/")
        page.fill("input[name=username]", "admin")
        page.fill("input[name=password]", PASSWORD)
        page.click("button[type=submit]")
        page.wait_for_url("**/admin/")
        yield page
        browser.close()
    assert troubles == []


def test_operator_watches_a_message_travel(stack, alice, page: Page, tmp_path):
    reply = alice.chat("Watch me travel 🚀")
    # the question, the answer, the state behind it, and in a moment what the title cost
    wait_until(lambda: len(stack.books(alice).events) == 4, 15, "the title's event")
    stack.wait_settled(alice, messages=2)

    page.goto(f"/admin/outbox/outboxmessage/?q={reply.conversation_id}")
    rows = page.locator("table#result_list tbody tr")
    expect(rows).to_have_count(4)
    expect(rows.first).to_contain_text(re.compile("consumed", re.IGNORECASE))
    rows.last.locator("a").first.click()
    expect(page.locator("body")).to_contain_text("Watch me travel 🚀")
    expect(page.locator("body")).to_contain_text(reply.conversation_id)
    page.screenshot(path=tmp_path / "row.png", full_page=True)


def test_operator_sees_by_itself_what_blocks_a_key_and_is_led_to_the_verb(stack, page: Page, tmp_path):
    page.goto("/admin/")
    expect(page.locator("[data-card=blocked] strong")).to_have_text("0")
    try:
        stack.manage("shell", "-c", BLOCKED)
        # the page fetches itself again while somebody looks
        expect(page.locator("[data-card=blocked] strong")).to_have_text("1")
        expect(page.locator("[data-trouble=blocked]")).to_contain_text("1 key is blocked")
        page.screenshot(path=tmp_path / "overview.png", full_page=True)

        page.locator("#blocked a", has_text="blocked-key").click()
        expect(page.locator("[data-tone=bad]")).to_contain_text("1 events wait behind it")
        expect(page.locator("main tbody tr, #content tbody tr")).to_contain_text(["dead", "held"], ignore_case=True)
        page.screenshot(path=tmp_path / "key.png", full_page=True)

        page.get_by_role("link", name=re.compile("^Open row #")).click()
        expect(page.locator("#story")).to_contain_text("ToolFailed: in a test")
        expect(page.locator("#neighbours")).to_contain_text("held", ignore_case=True)
        page.screenshot(path=tmp_path / "blocked-row.png", full_page=True)

        page.locator("[data-tone=bad] a", has_text="Discard").click()
        expect(page.locator("[name=reason]")).to_be_visible()
    finally:
        stack.manage("shell", "-c", UNBLOCKED)


def test_operator_finds_a_dead_letter_and_gives_it_up_with_a_reason(stack, page: Page, tmp_path):
    stack.manage("shell", "-c", UNREADABLE)

    page.goto("/admin/")
    expect(page.locator("body")).to_contain_text("Dead")
    page.goto("/admin/outbox/deadletter/")
    row = page.locator("table#result_list tbody tr", has_text="broken-key")
    for _ in range(20):
        if row.count():
            break
        page.wait_for_timeout(500)
        page.reload()
    expect(row).to_contain_text("unreadable payload")

    row.locator("input[name=_selected_action]").check()
    page.select_option("select[name=action]", "discard")
    page.click("#changelist-form button[name=index]")
    page.screenshot(path=tmp_path / "reason.png", full_page=True)
    page.fill("[name=reason]", "cut by hand in a test")
    page.click("main button[type=submit], #content button[type=submit]")

    page.goto("/admin/outbox/deadletter/?q=broken-key")
    expect(page.locator("table#result_list tbody tr")).to_contain_text("cut by hand in a test")
    page.goto("/admin/admin/logentry/")
    expect(page.locator("body")).to_contain_text("Reason: cut by hand in a test")
    page.screenshot(path=tmp_path / "log.png", full_page=True)
