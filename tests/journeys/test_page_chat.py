"""The chat panel of /app/ in the system's Chromium: streaming, coming back to it, and everything a reader can do."""

import re
import shutil
from contextlib import contextmanager
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.stack import Person, wait_until
from tests.stack.person import PASSWORD
from tests.stack.proxy import Proxy

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# As root, and without a network to look up anything on.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
PHONE = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark", "has_touch": True, "is_mobile": True}
QUESTION_TIME = "[...document.querySelectorAll('.chat time')].slice(-1).map(it => [it.textContent, it.dateTime])[0]"
# What Chromium writes to its console of a failed request that a test makes fail.
EXPECTED_TROUBLE = ("Failed to load resource",)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: scripts/services.py install --browser")


class Student:
    """Somebody who signed up at the page: the cookies of a browser, and the same account at the API."""

    def __init__(self, browser, stack):
        self.base_url = stack.base_url
        self.browser = browser
        self.troubles: list[str] = []
        self.api = Person(stack.base_url, f"reader-{stack.port}")
        with self.page(signed_in=False) as page:
            page.goto("/app/sign-up")
            page.fill("#username", self.api.username)
            page.fill("#password", PASSWORD)
            page.click("button.main-button")
            page.wait_for_url("**/app/")
            self.cookies = page.context.storage_state()
        self.api.sign_in()

    @contextmanager
    def page(self, *, signed_in=True, **options):
        """A page in a browser of its own; any request to another host, and any error in the page, is kept."""
        if signed_in:
            options["storage_state"] = self.cookies
        options = {"base_url": self.base_url, "viewport": {"width": 1280, "height": 800}} | options
        context = self.browser.new_context(**options)
        page = self.watched(context.new_page())
        try:
            yield page
        finally:
            context.close()

    def watched(self, page):
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: self.troubles.append(str(error)))
        page.on("console", lambda line: line.type == "error" and self._note(line.text))
        page.on(
            "request",
            lambda request: request.url.startswith(("http://127.0.0.1:", "data:")) or self.troubles.append(request.url),
        )
        return page

    def _note(self, text):
        if not text.startswith(EXPECTED_TROUBLE):
            self.troubles.append(text)


@pytest.fixture(scope="module")
def student(shared_stack):
    shared_stack.ensure_running()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        student = Student(browser, shared_stack)
        yield student
        student.api.close()
        browser.close()
    assert student.troubles == []


@pytest.fixture(scope="module")
def browser_page(student):
    with student.page() as page:
        yield page


@pytest.fixture
def page(browser_page, stack):
    """A new conversation, in one browser for all tests: it has loaded the scripts before."""
    browser_page.goto("/app/")
    yield browser_page
    for other in browser_page.context.pages:
        if other is not browser_page:
            other.close()


def tokens(count):
    return " ".join(f"token {number}" for number in range(1, count + 1))


def write(page: Page, message: str):
    page.fill("#chat-message", message)
    page.press("#chat-message", "Enter")


def answers(page: Page):
    return page.locator("[data-part=text]")


def say_hello(page: Page):
    """Have one short answer, so that there is a conversation that can go on."""
    write(page, "Hello")
    expect(answers(page)).to_have_text(tokens(8))
    expect(page.locator("[data-action=send]")).to_be_visible()


def test_an_answer_streams_and_goes_on_after_a_reload_and_in_a_second_tab(student, page, tmp_path):
    write(page, "Tell me a lot [[tokens=150 delay_ms=30]]")
    expect(page.locator("#chat-message")).to_have_value("")
    expect(page.locator("[data-action=stop]")).to_be_visible()
    expect(answers(page)).to_contain_text("token 5 ")
    page.screenshot(path=tmp_path / "streaming.png")

    second = student.watched(page.context.new_page())
    page.reload()
    expect(page.locator("[data-action=stop]")).to_be_visible()
    second.goto(page.url)
    expect(second.locator("[data-action=stop]")).to_be_visible()

    for one in (page, second):
        expect(answers(one)).to_have_text(tokens(150), timeout=15_000)
        expect(one.locator("[data-part=asked]")).to_have_text("Tell me a lot [[tokens=150 delay_ms=30]]")
        expect(one.locator("[data-action=send]")).to_be_visible()
        # the title comes by itself
        expect(one.locator("[data-part=title]")).to_have_text("token 1 token 2 token 3", timeout=15_000)
    page.screenshot(path=tmp_path / "answered.png")


def test_what_another_tab_asks_appears_here(student, page):
    say_hello(page)
    second = student.watched(page.context.new_page())
    second.goto(page.url)

    write(second, "And this? [[text=zh tokens=40 delay_ms=15]]")

    expect(page.locator("[data-part=asked]").nth(1)).to_have_text("And this? [[text=zh tokens=40 delay_ms=15]]")
    expect(answers(page).nth(1)).to_have_text("明天上午九点有高等数学课，请记得带作业。" * 2)


def test_an_answer_that_is_stopped_can_go_on(page, tmp_path):
    write(page, "A long story [[tokens=400 delay_ms=25]]")
    expect(answers(page)).to_contain_text("token 3 ")

    page.press("#chat-message", "Escape")

    expect(page.locator("[data-part=notice]")).to_have_text("You stopped this answer.")
    stopped = answers(page).inner_text()
    page.screenshot(path=tmp_path / "stopped.png")
    page.get_by_role("button", name="Continue").click()
    expect(answers(page)).to_have_text([stopped, tokens(8)])
    page.reload()
    expect(answers(page)).to_have_text([stopped, tokens(8)])
    expect(page.get_by_role("button", name="Continue")).to_have_count(0)


def test_a_cut_answer_says_why_before_and_after_a_reload(page):
    write(page, "Break off [[tokens=30 cut after=5]]")

    for _ in range(2):
        expect(page.locator("[data-state=failed] [data-part=notice]")).to_contain_text("What you see is kept")
        expect(answers(page)).to_have_text(tokens(5))
        expect(page.get_by_role("button", name="Continue")).to_be_visible()
        page.reload()


def test_an_answer_is_made_again_and_the_chosen_one_counts(student, page, tmp_path):
    write(page, "Which one? [[text=echo numbered]]")
    expect(page.get_by_role("button", name="Answer again")).to_be_visible()
    first = answers(page).inner_text()

    page.get_by_role("button", name="Answer again").click()
    expect(page.locator("[data-part=place]")).to_have_text("2 / 2")
    expect(answers(page)).not_to_have_text(first)
    page.screenshot(path=tmp_path / "variants.png")
    with page.expect_response("**/select"):
        page.get_by_role("button", name="Previous answer").click()
    expect(answers(page)).to_have_text(first)
    page.reload()

    expect(page.locator("[data-part=place]")).to_have_text("1 / 2")
    expect(answers(page)).to_have_text(first)


def test_a_connection_that_is_cut_comes_back_without_gap_or_repeat(student, stack, tmp_path):
    tunnel = Proxy(("127.0.0.1", stack.port))
    try:
        with student.page(base_url=f"http://127.0.0.1:{tunnel.port}") as page:
            page.goto("/app/")
            write(page, "Go through a tunnel [[tokens=50 delay_ms=30]]")
            expect(answers(page)).to_contain_text("token 4 ")

            tunnel.cut()
            expect(page.locator("[data-part=waiting]")).to_contain_text("The connection is interrupted")
            page.screenshot(path=tmp_path / "tunnel.png")
            tunnel.heal()

            expect(answers(page)).to_have_text(tokens(50))
    finally:
        tunnel.close()


def test_what_is_not_accepted_stays_in_the_box(student, page, tmp_path):
    long = "x" * (256 * 1024 + 1)
    write(page, "   ")
    expect(page.locator("[data-part=turns] > *")).to_have_count(0)

    write(page, long)
    expect(page.locator("[data-part=trouble]")).to_contain_text("at most 262144 characters")
    assert page.input_value("#chat-message") == long

    page.context.set_offline(True)
    write(page, "Are you there?")
    expect(page.locator("[data-part=trouble]")).to_contain_text("You are offline")
    assert page.input_value("#chat-message") == "Are you there?"
    page.screenshot(path=tmp_path / "refused.png")
    page.context.set_offline(False)
    page.press("#chat-message", "Enter")
    expect(page.locator("[data-part=trouble]")).to_be_hidden()
    expect(answers(page)).to_have_text(tokens(8))


def test_a_message_during_another_devices_answer_joins_that_answer(student, page):
    say_hello(page)
    conversation = re.search("conversation=([0-9a-f-]+)", page.url)[1]

    student.api.chat(
        "From a phone [[tokens=60 delay_ms=30]]", conversation, leave_when=lambda reply: bool(reply.events)
    )
    write(page, "Me too")

    expect(page.locator("[data-part=trouble]")).to_contain_text("your message is kept below")
    assert page.input_value("#chat-message") == "Me too"
    expect(answers(page)).to_have_text([tokens(8), tokens(60)])


def test_a_composing_enter_sends_nothing(page):
    page.fill("#chat-message", "ni hao")
    page.dispatch_event("#chat-message", "keydown", {"key": "Enter", "isComposing": True})
    page.press("#chat-message", "Shift+Enter")
    page.keyboard.type("second line")

    assert page.input_value("#chat-message") == "ni hao\nsecond line"
    expect(page.locator("[data-part=turns] > *")).to_have_count(0)
    page.press("#chat-message", "Enter")
    expect(page.locator("[data-part=asked]")).to_have_text("ni hao\nsecond line")


def test_what_a_model_writes_is_shown_as_text_and_never_run(page, tmp_path):
    said = "<script>document.title='taken'</script> <img src=x onerror='alert(1)'> [x](javascript:alert(1))"
    marks = "**bold** and `code <b>`\n\n- one\n- two\n\n```js\nlet a = '<i>';\n```"
    write_lines(page, f"[[text=echo]] {said}\n\n{marks}")

    answer = answers(page)
    expect(answer.locator("pre code")).to_have_text("let a = '<i>';")
    expect(answer).to_contain_text(said)
    expect(answer.locator("strong")).to_have_text("bold")
    expect(answer.locator("li")).to_have_text(["one", "two"])
    expect(answer.locator("script, img, b, i, a")).to_have_count(0)
    assert page.title() != "taken"
    page.screenshot(path=tmp_path / "marks.png")


def wait_for(page: Page, happened: list):
    """Wait for what a route's handler notes; handlers run while the page is waited for."""
    for _ in range(100):
        if happened:
            break
        page.wait_for_timeout(50)
    assert happened


def write_lines(page: Page, message: str):
    page.fill("#chat-message", message)
    page.get_by_role("button", name="Send").click()


def test_a_long_conversation_loads_earlier_messages_and_keeps_the_readers_place(student, stack, page):
    reply = student.api.chat("Question 0")
    stack.manage("shell", "-c", MANY.format(conversation=reply.conversation_id))
    page.goto(f"/app/?conversation={reply.conversation_id}")
    expect(page.locator("[data-part=asked]").last).to_have_text("Question 99")
    assert page.locator("[data-part=asked]").count() < 100

    page.locator("[data-part=scroller]").evaluate("element => element.scrollTo(0, 300)")
    expect(page.get_by_role("button", name="Go to the end")).to_be_visible()
    for _ in range(3):
        page.locator("[data-part=scroller]").evaluate("element => element.scrollTo(0, 0)")
        page.wait_for_timeout(150)
    expect(page.locator("[data-part=asked]")).to_have_count(100)
    page.get_by_role("button", name="Go to the end").click()
    expect(page.locator("[data-part=asked]").last).to_be_in_viewport()


MANY = """
from django.utils import timezone
from chat.models import AgentChat, AgentTimelineEvent
chat = AgentChat.objects.get(chat_id="{conversation}")
AgentTimelineEvent.objects.bulk_create(
    AgentTimelineEvent(chat_id=chat.chat_id, user_id=chat.user_id, seq=chat.timeline_seq + 2 * turn + part,
        kind=["user_text", "assistant_text"][part], role=["user", "assistant"][part],
        content=["Question %d" % turn, "Answer"][part], created_at=timezone.now(), payload=dict(
            run_id="run-%d" % turn, turn_no=turn + 1, **([{{}}, dict(state="finished", variant_no=1)][part])))
    for turn in range(1, 100) for part in (0, 1))
"""


def test_the_panel_on_a_phone_in_chinese_by_keyboard(student, stack, tmp_path):
    with student.page(**PHONE, locale="zh-CN", timezone_id="America/New_York") as page:
        page.goto("/app/")
        page.click("[data-show=chat]")
        expect(page.locator("#chat-message")).to_be_visible()
        page.screenshot(path=tmp_path / "phone.png")
        write(page, "你好 [[text=zh tokens=30]]")
        expect(answers(page)).to_contain_text("明天上午九点有高等数学课")
        assert page.evaluate("document.documentElement.lang") == "zh-hans"
        # in the student's zone, as the tasks beside are, wherever the browser is
        shown, asked_at = page.evaluate(QUESTION_TIME)
        here = datetime.fromisoformat(asked_at).astimezone(ZoneInfo("Asia/Shanghai"))
        assert shown.zfill(5) == f"{here:%H:%M}"
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        small = page.evaluate(SMALL_TARGETS)
        assert small == []
        page.screenshot(path=tmp_path / "phone-answer.png")
        write(page, "x" * (256 * 1024 + 1))
        # in the reader's language, as the server words it
        expect(page.locator("[data-part=trouble]")).to_contain_text("262144")
        expect(page.locator("[data-part=trouble]")).to_contain_text(re.compile("[一-龥]{4}"))
        page.locator("[data-part=trouble] button").click()

        opener = page.locator("[data-action=list]")
        opener.focus()
        page.keyboard.press("Enter")
        expect(page.locator("[data-conversation][aria-current]")).to_be_focused()
        page.wait_for_timeout(250)  # the drawer slides in
        page.screenshot(path=tmp_path / "phone-list.png")
        page.keyboard.press("Escape")
        expect(opener).to_be_focused()


SMALL_TARGETS = """() => [...document.querySelectorAll("[data-panel=chat] button")]
    .filter((button) => button.checkVisibility({visibilityProperty: true}) && !button.closest("[inert]"))
    .map((button) => [button.className, button.getBoundingClientRect()])
    .filter(([, box]) => box.width < 44 || box.height < 44)
    .map(([name, box]) => `${name} ${box.width}x${box.height}`)"""


def test_bob_does_not_open_alices_conversation(student, alice, page):
    reply = alice.chat("Mine")
    page.goto(f"/app/?conversation={reply.conversation_id}")

    expect(page.locator("[data-part=trouble]")).to_contain_text("does not exist")
    expect(page.locator("[data-part=empty]")).to_be_visible()
    assert "conversation=" not in page.url
    wait_until(lambda: page.locator("[data-part=asked]").count() == 0, 1)


def lose_the_acceptance(page: Page, message: str):
    """Send a message that the server takes; its answer never arrives."""
    lost = []

    def lose(route):
        lost.append(route.fetch())
        route.abort()

    page.route("**/agent/chat", lose)
    write(page, message)
    wait_for(page, lost)
    page.unroute("**/agent/chat")
    expect(page.locator("[data-part=trouble]")).to_be_visible()


@pytest.mark.parametrize("find_it_first", [False, True], ids=["at once", "in the conversation that it opened"])
def test_a_first_message_whose_acceptance_got_lost_is_there_once_however_often_it_is_sent(student, page, find_it_first):
    conversations = "/agent/conversation-list"
    before = student.api.data(conversations)["total"]
    message = f"Only once, please {find_it_first}"
    lose_the_acceptance(page, message)
    assert page.input_value("#chat-message") == message
    lost = student.api.data(conversations)["list"][0]["conversation_id"]
    if find_it_first:
        page.click("[data-action=list]")
        page.click(f"[data-conversation='{lost}']")
        expect(answers(page)).to_have_text([tokens(8)])

    page.press("#chat-message", "Enter")

    expect(answers(page)).to_have_text([tokens(8)])
    expect(page.locator("[data-part=asked]")).to_have_text([message])
    expect(page.locator("#chat-message")).to_have_value("")
    expect(page.locator("[data-part=trouble]")).to_be_hidden()
    expect(page.locator("[data-action=send]")).to_be_visible()
    assert student.api.data(conversations)["total"] == before + 1
    question, answer = student.api.timeline(lost)
    assert (question["content"], answer["content"].strip()) == (message, tokens(8))
    # what is meant as a second message is one
    write(page, message)
    expect(answers(page)).to_have_text([tokens(8), tokens(8)])


def test_a_message_whose_acceptance_got_lost_is_not_left_to_be_sent_twice(page):
    say_hello(page)
    lose_the_acceptance(page, "Did you get this?")
    page.evaluate("dispatchEvent(new Event('focus'))")

    expect(answers(page)).to_have_text([tokens(8), tokens(8)])
    expect(page.locator("#chat-message")).to_have_value("")
    expect(page.locator("[data-part=trouble]")).to_be_hidden()


@pytest.mark.parametrize(
    ("status", "code", "info", "wait", "told"),
    [
        (503, "50301", "Too many answers.", "7", "Too many answers. Try again in 7 s."),
        (429, "40051", "The quota starts anew on Monday.", "86400", "The quota starts anew on Monday."),
    ],
)
def test_a_refusal_is_told_in_the_servers_words_and_when_to_try_again(page, status, code, info, wait, told):
    body = {"status": code, "info": info, "request_id": "r"}
    page.route("**/agent/chat", lambda route: route.fulfill(status=status, json=body, headers={"Retry-After": wait}))
    write(page, "Hello")
    page.unroute("**/agent/chat")

    expect(page.locator("[data-part=trouble] p")).to_have_text(told)
    assert page.input_value("#chat-message") == "Hello"


def test_output_takes_pieces_snapshots_and_ends(page):
    assert page.evaluate(OUTPUT) == {
        "pieces": ["1-2", "ab", None],
        "snapshot": ["2-4", "new", ["status"]],
        "stopped": [True, "stopped", True],
        "failed": ["failed", "Sorry.", 9],
    }


OUTPUT = """async () => {
    const { Output } = await import("/static/app/chat-output.js");
    const fed = (...events) => {
        const output = new Output();
        return [output, events.map(([id, data]) => output.take({ id, data: JSON.stringify(data) })).at(-1)];
    };
    const says = (content) => ({ choices: [{ delta: { content }, finish_reason: null }] });
    const [pieces] = fed(["1-1", says("a")], ["1-2", says("b")]);
    const extra = { kind: "snapshot", events: [{ at: 0, data: { kind: "status" } }] };
    const [snapshot] = fed(["1-1", says("old")], ["2-4", { ...says("new"), extra }]);
    const interrupt = { type: "continue" };
    const finish = { choices: [{ delta: {}, finish_reason: "stop" }] };
    const [stopped] = fed(["1-1", { ...finish, extra: { status: { code: "stopped" }, interrupt } }]);
    const isDone = stopped.take({ id: "1-2", data: "[DONE]" });
    const [failed] = fed(["1-1", { error: { message: "Sorry.", retry_after_seconds: 9 } }]);
    return {
        pieces: [pieces.position, pieces.text, pieces.end],
        snapshot: [snapshot.position, snapshot.text, snapshot.extras.map((event) => event.kind)],
        stopped: [isDone, stopped.end.state, stopped.end.mayContinue],
        failed: [failed.end.state, failed.end.message, failed.end.retryAfterSeconds],
    };
}"""


def test_events_are_read_however_they_are_cut_and_silence_ends_the_reading(page):
    body = ": ping\n\nid: 1-1\ndata: 明\u2028天\r\n\r\nid: 1-2\ndata: a\ndata: b\n\ndata: cut"

    seen = page.evaluate(EVENTS, body)

    assert seen == {"read": [["1-1", "明\u2028天"], ["1-2", "a\nb"]], "silent": "SilentConnection"}


EVENTS = """async (body) => {
    const { readEvents, SilentConnection } = await import("/static/app/chat-sse.js");
    const bytes = new TextEncoder().encode(body);
    const inSingleBytes = new ReadableStream({
        start(controller) {
            for (const byte of bytes) controller.enqueue(new Uint8Array([byte]));
            controller.close();
        },
    });
    const read = [];
    for await (const event of readEvents(inSingleBytes)) read.push([event.id, event.data]);
    let silent = "";
    try {
        for await (const _event of readEvents(new ReadableStream(), { silenceMs: 30 })) silent = "an event";
    } catch (error) {
        silent = error instanceof SilentConnection ? "SilentConnection" : String(error);
    }
    return { read, silent };
}"""


def test_thoughts_are_a_panel_with_their_duration(page, tmp_path):
    page.evaluate(THOUGHTS)

    panel = page.locator("[data-part=thoughts]")
    expect(panel.locator("summary")).to_have_text("Thought for 12 s")
    panel.locator("summary").press("Enter")
    expect(panel.locator("p")).to_have_text("First the calendar. Then the essay.")
    expect(page.locator("[data-part=steps] li")).to_have_text(["Looked at your tasks"])
    page.screenshot(path=tmp_path / "thoughts.png")


THOUGHTS = """async () => {
    const { showThoughts } = await import("/static/app/chat-thoughts.js");
    const turn = document.querySelector("template[data-part=turn]").content.firstElementChild.cloneNode(true);
    document.querySelector("[data-part=scroller]").prepend(turn);
    const part = (name) => turn.querySelector(`[data-part=${name}]`);
    part("answer").hidden = false;
    const thought = (values) => ({ kind: "thinking_summary", thinking_summary: values });
    const step = (status, summary) => ({ kind: status, block_id: "b", tool: { name: "list_tasks", summary } });
    showThoughts(part("thoughts"), part("steps"), [
        thought({ short_summary: "Looking", detail_summary: "First the calendar. ", final: false }),
        step("tool_call", "Looking at your tasks"),
        step("tool_result", "Looked at your tasks"),
        thought({ detail_summary: "Then the essay.", final: true, duration_seconds: 11.8 }),
    ], { isLive: false });
}"""


def test_a_conversation_is_the_same_in_whatever_order_its_entries_come(page):
    forth, back = page.evaluate(ORDERS)

    assert forth == back == [[1, "Q1", ["a", "b"], "a"], [2, "Q2", ["c"], "c"]]


ORDERS = """async () => {
    const { Conversation } = await import("/static/app/chat-conversation.js");
    const entry = (seq, kind, content, payload) => ({ seq, kind, content, payload });
    const answer = (seq, run_id, turn_no, variant_no) =>
        entry(seq, "assistant_text", run_id, { run_id, turn_no, variant_no, state: "finished" });
    const entries = [
        entry(1, "user_text", "Q1", { run_id: "a", turn_no: 1 }), answer(2, "a", 1, 1), answer(3, "b", 1, 2),
        entry(4, "variant_selected", "", { run_id: "a", turn_no: 1 }),
        entry(5, "user_text", "Q2", { run_id: "c", turn_no: 2 }), answer(6, "c", 2, 1),
    ];
    return [entries, entries.toReversed()].map((ordered) => {
        const conversation = new Conversation("id");
        ordered.forEach((one) => conversation.take([one]));
        return conversation.ordered.map((turn) => [
            turn.no, turn.question.text, turn.ordered.map((variant) => variant.text), turn.shown.text,
        ]);
    });
}"""
