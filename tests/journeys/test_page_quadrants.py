"""People at the page's quadrants, in the system's Chromium: mouse, keyboard, phone, two windows, a lost network.

Screenshots are kept under var/screenshots/ (SMARTFLOW_SCREENSHOTS names another folder).
"""

import os
import re
import shutil
import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.stack import Stack
from tests.stack.page_cookie import page_cookie
from tests.stack.person import PASSWORD, Person
from tests.stack.processes import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SHOTS = Path(os.environ.get("SMARTFLOW_SCREENSHOTS") or ROOT / "var" / "screenshots")
DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 360, "height": 740}
TOUCH_PIXELS = 44
# What the browser says of a network that the test takes away.
EXPECTED = re.compile(
    r"ERR_INTERNET_DISCONNECTED|htmx:(sendError|afterRequest)|status of (400|401|404|422)|Failed to fetch"
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: scripts/services.py install --browser")


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(stack: Stack, chromium: Browser):
    """Return a function that opens a window; requests to another host and errors in a window fail the test."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    contexts, troubles = [], []

    def open_window(person: Person | None, viewport=DESKTOP, locale: str = "en", **options) -> Page:
        context = chromium.new_context(base_url=stack.base_url, viewport=viewport, locale=locale, **options)
        contexts.append(context)
        context.set_default_timeout(10_000)
        page = context.new_page()
        page.on("request", lambda sent: sent.url.startswith((stack.base_url, "data:")) or troubles.append(sent.url))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "console",
            lambda said: said.type == "error" and not EXPECTED.search(said.text) and troubles.append(said.text),
        )
        if person is None:
            sign_up(page)
        else:
            context.add_cookies([page_cookie(stack, person)])
            page.goto("/app/")
        return page

    yield open_window
    for context in contexts:
        for page in context.pages:
            # ids are the keys of what is drawn: one twice would be two truths
            twice = "ids => ids.filter((id, at) => ids.indexOf(id) !== at)"
            ids = page.evaluate("[...document.querySelectorAll('[id]')].map((part) => part.id)")
            assert page.evaluate(twice, ids) == []
        context.close()
    assert troubles == []


def sign_up(page: Page) -> None:
    """Come as a stranger: a password that is too short, a better one, and in."""
    page.goto("/")
    page.wait_for_url("**/app/sign-in?next=*")
    page.locator(".door-other a").click()
    page.fill("#username", f"page-{os.getpid()}-{time.time_ns()}")
    page.fill("#password", "short")
    page.press("#password", "Enter")
    expect(page.locator("#password-error")).to_contain_text("at least 8 characters")
    page.fill("#password", PASSWORD)
    page.press("#password", "Enter")
    page.wait_for_url("**/app/")


def add(page: Page, quadrant: int, title: str) -> None:
    page.fill(f"#add-{quadrant}-title", title)
    page.press(f"#add-{quadrant}-title", "Enter")
    expect(row(page, title, quadrant)).to_be_visible()


def row(page: Page, title: str, quadrant: int | None = None):
    return page.locator(f"#list-{quadrant} .task" if quadrant else ".task", has_text=title)


def drag_by_finger(page: Page, source, target) -> None:
    source.evaluate("handle => handle.scrollIntoView({ block: 'center' })")  # not under the toast
    begin, end = source.bounding_box(), target.bounding_box()
    places = [(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) for box in (begin, end)]
    (x, y), (to_x, to_y) = places
    finger = page.context.new_cdp_session(page)
    steps = [(x + (to_x - x) * part / 8, y + (to_y - y) * part / 8) for part in range(9)]
    for kind, (at_x, at_y) in zip(["touchStart", *["touchMove"] * 8], steps, strict=True):
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": at_x, "y": at_y}]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def focused(page: Page) -> str:
    return page.evaluate("document.activeElement.id")


def call_api(page: Page, path: str, body: dict) -> dict:
    """Let the page's own script speak to the API, with the token that the page lends it."""
    script = """async ([path, body]) => {
      const { accessToken } = await import("/static/app/token.js");
      const answer = await fetch(`/api/v1${path}`, { method: "POST", body: JSON.stringify(body), headers: {
        Authorization: `Bearer ${await accessToken()}`, "Content-Type": "application/json",
        "X-Idempotency-Key": `journey-${Math.random()}` } });
      return answer.json();
    }"""
    return page.evaluate(script, [path, body])


def test_student_keeps_tasks_with_the_mouse(visit):
    page = visit(None)
    page.locator("#add-1-title").press("Enter")
    expect(page.locator("#add-1-title-error")).to_have_text("This field may not be blank.")
    add(page, 1, "Hand in the lab report")
    expect(page.locator("#add-1-title-error")).to_have_count(0)
    assert focused(page) == "add-1-title"
    page.fill("#add-2-title", "Outline the thesis")
    page.locator("#add-2-button").dblclick()
    expect(row(page, "Outline the thesis", 2)).to_have_count(1)
    expect(page.locator("#count-2 [aria-hidden]")).to_have_text("1")
    page.locator("#add-3-details").click()
    page.fill("#add-3-deadline", "2031-05-06T07:08")
    add(page, 3, "Return library books")
    expect(row(page, "Return library books").locator("time")).to_have_text("6 May 2031, 07:08")
    page.screenshot(path=SHOTS / "quadrants-desktop.png")

    # drag between quadrants, and back by the toast
    source, target = row(page, "Return library books").bounding_box(), page.locator("#quadrant-4").bounding_box()
    page.mouse.move(source["x"] + 120, source["y"] + 15)
    page.mouse.down()
    page.mouse.move(target["x"] + 80, target["y"] + 150, steps=6)
    page.screenshot(path=SHOTS / "quadrants-drag.png")
    page.mouse.up()
    expect(row(page, "Return library books", 4)).to_be_visible()
    page.locator("#undo").click()
    expect(row(page, "Return library books", 3)).to_be_visible()

    # edit in place: a bound that is passed is named, what was typed stays
    row(page, "Outline the thesis").locator(".task-open").click()
    editor = page.locator("form.editor")
    editor.locator("[name=title]").fill("x" * 256)
    editor.locator("[name=title]").press("Enter")
    expect(editor.locator(".field-error")).to_contain_text("no more than 255 characters")
    page.screenshot(path=SHOTS / "quadrants-editor.png")
    editor.locator("[name=title]").fill("Outline the thesis, chapter 2")
    editor.locator("[name=title]").press("Enter")
    expect(row(page, "Outline the thesis, chapter 2", 2)).to_be_visible()
    expect(editor).to_have_count(0)

    # complete by one click; it sinks below what is open
    add(page, 1, "Pay the dormitory fee")
    row(page, "Hand in").locator(".tick").click()
    expect(page.locator("#list-1 .task").last).to_have_class(re.compile("is-done"))
    expect(page.locator("#list-1 .task").last).to_contain_text("Hand in the lab report")
    page.locator("#undo").click()
    expect(page.locator("#list-1 .is-done")).to_have_count(0)

    row(page, "Pay").locator("[data-menu]").click()
    page.screenshot(path=SHOTS / "quadrants-menu.png")
    page.locator("#task-menu [data-do=delete]").click()
    expect(row(page, "Pay")).to_have_count(0)
    expect(page.locator("#toast")).to_contain_text("Deleted “Pay the dormitory fee”.")
    page.locator("#undo").click()
    expect(row(page, "Pay", 1)).to_be_visible()


def test_student_does_everything_by_keyboard(visit, alice):
    page = visit(alice, color_scheme="dark")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    add(page, 3, "Water the plants")
    add(page, 3, "Buy tea")
    page.locator("#add-3-button").focus()
    page.keyboard.press("Tab")  # deadline and effort
    page.keyboard.press("Tab")
    expect(row(page, "Water").locator(".tick")).to_be_focused()
    tick = focused(page)
    page.keyboard.press("Space")
    expect(row(page, "Water")).to_have_class(re.compile("is-done"))
    assert focused(page) == tick
    page.keyboard.press("Control+z")
    expect(page.locator("#list-3 .is-done")).to_have_count(0)
    assert focused(page) == tick
    page.keyboard.press("1")
    expect(row(page, "Water", 1)).to_be_visible()
    assert focused(page) == tick
    page.keyboard.press("e")
    expect(page.locator("form.editor [name=title]")).to_be_focused()
    page.keyboard.type(" thoroughly")
    page.keyboard.press("Escape")
    expect(row(page, "thoroughly")).to_have_count(0)
    page.keyboard.press("e")
    expect(page.locator("form.editor [name=title]")).to_be_focused()
    page.keyboard.press("End")
    page.keyboard.type(" daily")
    page.keyboard.press("Enter")
    expect(row(page, "Water the plants daily", 1)).to_be_visible()
    expect(row(page, "Water").locator(".task-open")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#task-menu [data-do=edit]")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")  # its own quadrant is left out: the next is 2
    expect(row(page, "Water", 2)).to_be_visible()
    page.screenshot(path=SHOTS / "quadrants-keyboard-dark.png")
    page.keyboard.press("Delete")
    expect(row(page, "Water")).to_have_count(0)
    expect(page.locator("#toasts")).to_contain_text("Deleted")
    assert focused(page) == "add-2-title"


def test_student_on_a_phone_in_chinese(visit, alice):
    page = visit(alice, viewport=PHONE, locale="zh-CN", has_touch=True, is_mobile=True)
    expect(page.locator("html")).to_have_attribute("lang", "zh-hans")
    add(page, 1, "交实验报告，并把数据整理成一张很长很长很长很长很长很长的表格")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    small = page.evaluate(
        """least => [...document.querySelectorAll("#tasks :is(button, .task-open, input, summary), .tab")]
          .map((part) => [part.id || part.className, part.getBoundingClientRect()])
          .filter(([, box]) => box.width > 0 && (box.width < least || box.height < least)).map(([name]) => name)""",
        TOUCH_PIXELS,
    )
    assert small == []
    page.screenshot(path=SHOTS / "quadrants-phone-zh.png", full_page=True)
    page.locator("[data-menu]").tap()
    page.screenshot(path=SHOTS / "quadrants-phone-menu-zh.png")
    page.locator("#task-menu [data-quadrant='4']").tap()
    expect(row(page, "交实验报告", 4)).to_be_visible()
    page.locator("[data-show=chat]").tap()
    expect(page.locator("#tasks")).to_be_hidden()
    page.screenshot(path=SHOTS / "page-phone-chat-zh.png")
    page.locator("[data-show=tasks]").tap()
    expect(page.locator("#tasks")).to_be_visible()
    page.locator("#toast-close").tap()
    drag_by_finger(page, row(page, "交实验报告").locator(".handle"), page.locator("#quadrant-3"))
    expect(row(page, "交实验报告", 3)).to_be_visible()


def test_windows_show_each_others_changes_and_what_becomes_urgent(visit, alice):
    page, other = visit(alice), visit(alice)
    add(page, 2, "Read the paper")
    row(page, "Read the paper").locator(".task-open").click()
    page.locator("form.editor [name=title]").fill("half typed")
    page.fill("#add-4-title", "also half typed")
    page.evaluate("window.isSame = true")
    expect(row(other, "Read the paper", 2)).to_be_visible()

    soon = page.evaluate("new Date(Date.now() + 3000).toISOString()")
    body = {"title": "By the assistant", "priority_group": 2, "urgency_threshold_at": soon}
    assert call_api(other, "/task/create", body)["status"] == "10000"
    expect(row(page, "By the assistant", 2)).to_be_visible()
    row(other, "Read the paper").locator(".tick").click()
    expect(row(page, "By the assistant", 1)).to_be_visible()  # its threshold passed, and nobody wrote
    assert page.evaluate("window.isSame")
    assert page.input_value("form.editor [name=title]") == "half typed"
    assert page.input_value("#add-4-title") == "also half typed"
    page.screenshot(path=SHOTS / "quadrants-live.png")

    assert call_api(other, "/user/sessions/end-all", {"keep_current": False})["status"] == "10000"
    row(page, "By the assistant").locator(".tick").click()
    page.wait_for_url("**/app/sign-in")
    page.screenshot(path=SHOTS / "sign-in.png")


def test_student_loses_the_network_and_nothing_else(visit, alice):
    page = visit(alice)
    add(page, 2, "Before")
    page.context.set_offline(True)
    page.fill("#add-2-title", "Typed on the train")
    page.press("#add-2-title", "Enter")
    expect(page.locator("#toast")).to_contain_text("SmartFlow can't be reached. What you typed is still here")
    assert page.input_value("#add-2-title") == "Typed on the train"
    row(page, "Before").locator(".tick").click()
    expect(page.locator(".is-ticking")).to_have_count(0)
    row(page, "Before").locator(".task-open").focus()
    page.keyboard.press("4")
    expect(row(page, "Before", 2)).to_be_visible()
    page.screenshot(path=SHOTS / "quadrants-offline.png")
    page.context.set_offline(False)
    page.press("#add-2-title", "Enter")
    expect(row(page, "Typed on the train", 2)).to_have_count(1)
