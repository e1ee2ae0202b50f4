"""The quadrants of the page: what is shown, what a form does, what is taken back, and what others cannot do."""

from datetime import timedelta

import pytest
from django.db import OperationalError

from smartflow.kernel.clock import utc_now
from smartflow.kernel.ids import new_uuid
from smartflow.web.app import board, page
from tasks.models import Task
from tests.integration.web.pages import Browser, card_of, inline_code, rows_of
from tests.task_rows import add_task

pytestmark = pytest.mark.django_db
COLUMNS = (
    "title",
    "priority",
    "is_completed",
    "deadline_at",
    "urgency_threshold_at",
    "estimated_sections",
    "deleted_at",
)


@pytest.fixture
def browser(alice):
    return Browser(alice)


def stored(task_id):
    return Task.objects.filter(pk=task_id).values(*COLUMNS).get()


def test_page_shows_each_task_in_its_quadrant_and_completed_ones_last(alice, browser):
    add_task(alice, "later", priority=1, deadline_at=utc_now() + timedelta(days=2))
    add_task(alice, "sooner", priority=1, deadline_at=utc_now() + timedelta(days=1))
    done = add_task(alice, "done", priority=1, deadline_at=utc_now())
    add_task(alice, "small", priority=3)
    browser.do("complete", done)
    answer = browser.get("/app/")
    assert rows_of(answer, 1) == ["sooner", "later", "done"]
    assert (card_of(answer, 1).count_text, card_of(answer, 2).count_text) == ("2", "0")
    assert rows_of(answer, 3) == ["small"]
    assert answer.content.decode().count("<h2") >= 4


def test_page_shows_what_became_urgent_and_says_when_the_next_will(alice, browser):
    now = utc_now()
    add_task(alice, "due", priority=2, urgency_threshold_at=now - timedelta(seconds=1))
    add_task(alice, "soon", priority=4, urgency_threshold_at=now + timedelta(seconds=30))
    answer = browser.get("/app/quadrants")
    assert (rows_of(answer, 1), rows_of(answer, 4)) == (["due"], ["soon"])
    assert 20_000 < answer.context["board"].next_change_ms <= 30_250


def test_page_marks_what_is_overdue_in_the_words_of_its_user(alice, browser):
    alice.time_zone = "Europe/Berlin"
    alice.save()
    add_task(alice, priority=1, deadline_at=utc_now() - timedelta(days=400))
    row = card_of(browser.get("/app/"), 1).rows[0]
    local = row.deadline_at.astimezone(board.ZoneInfo("Europe/Berlin"))
    assert row.is_overdue
    assert row.deadline_text.endswith(f"{local:%H:%M}")
    assert str(local.year) in row.deadline_text


def test_page_shows_a_bounded_number_and_more_when_asked(alice, browser, django_assert_max_num_queries, monkeypatch):
    for name, value in (("SHOWN", 3), ("COMPLETED_SHOWN", 2), ("MOST_COUNTED", 6)):
        monkeypatch.setattr(board, name, value)
    for number in range(8):
        add_task(alice, f"t{number}", priority=2)
    with django_assert_max_num_queries(16):
        first = card_of(browser.get("/app/quadrants"), 2)
    assert (len(first.rows), first.has_more, first.more, first.count_text) == (3, True, 6, "6+")
    assert len(card_of(browser.get("/app/quadrants?shown_2=6"), 2).rows) == 6
    for odd in ("-1", "x", "٣", "9" * 30, ""):
        assert len(card_of(browser.get("/app/quadrants", data={"shown_2": odd}), 2).rows) >= 3


def test_page_holds_no_code_and_shows_titles_as_text(alice, browser):
    add_task(alice, "<img src=x onerror=alert(1)>", priority=1)
    html = browser.get("/app/").content.decode()
    assert "&lt;img src=x" in html
    assert inline_code(html.replace("onerror=alert", "")) == []


def test_add_adds_to_its_quadrant_and_answers_with_the_quadrants(alice, browser):
    deadline = "2027-03-04T09:30"
    answer = browser.add("Essay", 2, deadline_at=deadline, estimated_sections="3")
    assert rows_of(answer, 2) == ["Essay"]
    task = Task.objects.get(user=alice)
    assert (task.priority, task.estimated_sections) == (2, 3)
    assert task.deadline_at.isoformat() == "2027-03-04T01:30:00+00:00"
    assert task.urgency_threshold_at == task.deadline_at - timedelta(hours=24)
    assert '"quadrant": 2' in answer["HX-Trigger"]


def test_add_happens_once_when_its_form_comes_twice(alice, browser):
    key = new_uuid()
    first, again = browser.add("Essay", key=key), browser.add("Essay", key=key)
    assert (first.status_code, again.status_code) == (200, 200)
    assert rows_of(again, 2) == ["Essay"]
    assert Task.objects.count() == 1


def test_add_asks_before_it_adds_a_text_that_was_changed_after_a_lost_answer(alice, browser):
    key = new_uuid()
    browser.add("Essay", key=key)
    answer = browser.add("Essay about Kant", key=key)
    assert answer.status_code == 422
    assert "“Essay” was added before." in answer.content.decode()
    form = answer.context["form"]
    assert form.typed["title"] == "Essay about Kant"
    assert rows_of(browser.add("Essay about Kant", key=form.key), 2) == ["Essay", "Essay about Kant"]


@pytest.mark.parametrize(
    ("values", "field", "hint"),
    [
        ({"title": " "}, "title", "may not be blank"),
        ({"title": "x" * 256}, "title", "no more than 255"),
        ({"title": "x", "estimated_sections": "9"}, "estimated_sections", "less than or equal to 4"),
        ({"title": "x", "deadline_at": "soon"}, "deadline_at", "wrong format"),
        ({"title": "x", "deadline_at": "0001-01-01T00:00"}, "deadline_at", "between 1970 and 9999"),
    ],
)
def test_add_keeps_what_was_typed_and_names_the_bound(browser, values, field, hint):
    answer = browser.add(values.pop("title"), **values)
    assert answer.status_code == 422
    assert answer["HX-Retarget"] == "#add-2"
    form = answer.context["form"]
    assert hint in form.errors[field]
    assert f'id="add-2-{ {"deadline_at": "deadline", "estimated_sections": "sections"}.get(field, field) }-error"' in (
        answer.content.decode()
    )
    assert Task.objects.count() == 0


def test_forms_work_without_scripts(alice, browser):
    added = browser.add("Essay", by_script=False)
    assert (added.status_code, added["Location"]) == (302, "/app/")
    task_id = Task.objects.get().pk
    moved = browser.do("move", task_id, {"quadrant": 4}, by_script=False)
    assert rows_of(browser.get("/app/"), 4) == ["Essay"]
    assert b'name="undo"' in browser.get(moved["Location"]).content
    assert f'action="/app/tasks/{task_id}/edit"' in browser.get(f"/app/?edit={task_id}").content.decode()
    wrong = browser.do("edit", task_id, {"title": ""}, by_script=False)
    assert wrong.status_code == 422
    assert b"may not be blank" in wrong.content
    blank = browser.add("", by_script=False)
    assert blank.status_code == 422
    assert b"may not be blank" in blank.content


@pytest.mark.parametrize(
    ("verb", "values"),
    [
        ("complete", {}),
        ("delete", {}),
        ("move", {"quadrant": 1}),
        ("edit", {"title": "Other", "deadline_at": "", "estimated_sections": "1"}),
    ],
)
def test_undo_restores_exactly(alice, browser, verb, values):
    task_id = add_task(
        alice,
        "Essay",
        priority=2,
        deadline_at=utc_now() + timedelta(days=9, microseconds=7),
        urgency_threshold_at=utc_now() - timedelta(hours=1),
        estimated_sections=3,
    )
    before = stored(task_id)
    answer = browser.do(verb, task_id, values)
    assert stored(task_id) != before
    assert browser.undo(answer).status_code == 200
    assert stored(task_id) == before


def test_undo_leaves_alone_what_another_device_changed_since(alice, browser):
    task_id = add_task(alice, "Essay", priority=3)
    answer = browser.do("move", task_id, {"quadrant": 4})
    browser.do("edit", task_id, {"title": "Essay, final", "estimated_sections": "1"})
    browser.undo(answer)
    assert (stored(task_id)["title"], stored(task_id)["priority"]) == ("Essay, final", 3)


def test_undo_takes_nobody_elses_and_nothing_forged(alice, bob, browser):
    answer = browser.do("delete", add_task(alice))
    theirs = Browser(bob).undo(answer)
    forged = browser.post("/app/tasks/undo", {"undo": "x:y:z"})
    assert (theirs.status_code, forged.status_code) == (400, 400)
    assert Task.objects.get().deleted_at is not None


def test_edit_moves_the_threshold_that_followed_from_the_deadline(alice, browser):
    deadline = utc_now() + timedelta(days=9)
    follows = add_task(alice, priority=2, deadline_at=deadline)
    chosen = add_task(alice, priority=2, deadline_at=deadline, urgency_threshold_at=None)
    for task_id in (follows, chosen):
        browser.do("edit", task_id, {"title": "x", "deadline_at": "2030-01-02T08:00", "estimated_sections": ""})
    task = Task.objects.get(pk=follows)
    assert task.urgency_threshold_at == task.deadline_at - timedelta(hours=24)
    assert Task.objects.get(pk=chosen).urgency_threshold_at is None


def test_edit_without_a_change_tells_nothing(alice, browser):
    deadline = utc_now() + timedelta(days=9, microseconds=5)
    task_id = add_task(alice, "Essay", deadline_at=deadline)
    typed = browser.get(f"/app/tasks/{task_id}/editor").context["editor"]["typed"]
    before = stored(task_id)
    answer = browser.do("edit", task_id, typed)
    assert stored(task_id) == before
    assert answer.context["undo"] == ""


def test_repeated_ticks_are_one(alice, browser):
    task_id = add_task(alice)
    assert [browser.do("complete", task_id).status_code for _ in range(2)] == [200, 200]
    assert stored(task_id)["is_completed"]
    assert [browser.do("reopen", task_id).status_code for _ in range(2)] == [200, 200]
    assert not stored(task_id)["is_completed"]


@pytest.mark.parametrize("verb", ["editor", "complete", "reopen", "move", "edit", "delete"])
def test_bob_finds_none_of_alices_tasks(alice, bob, verb):
    task_id = add_task(alice, "Private", priority=2)
    before = stored(task_id)
    his = Browser(bob)
    answer = (
        his.get(f"/app/tasks/{task_id}/editor")
        if verb == "editor"
        else his.do(verb, task_id, {"quadrant": 1, "title": "Mine"})
    )
    assert answer.status_code == 404
    assert b"Private" not in answer.content
    assert stored(task_id) == before
    assert b"Private" not in his.get("/app/").content
    unknown = his.do("complete", task_id + 1000)
    assert (unknown.status_code, unknown.content) == (404, his.do("complete", task_id).content)


@pytest.mark.parametrize("quadrant", ["0", "5", "x", ""])
def test_move_refuses_what_is_no_quadrant(alice, browser, quadrant):
    answer = browser.do("move", add_task(alice), {"quadrant": quadrant})
    assert answer.status_code == 400
    assert answer.content.decode() == "Give a priority from 1 to 4."


def test_writes_of_the_page_and_the_api_share_their_limit(alice, browser, settings, alice_client):
    settings.RATE_LIMITS = True
    settings.RATE_LIMIT_GROUPS = {**settings.RATE_LIMIT_GROUPS, "write": (2, 60)}
    task_id = add_task(alice)
    assert browser.do("complete", task_id).status_code == 200
    task = {"title": "x", "priority_group": 1}
    created = alice_client.post("/api/v1/task/create", task, format="json", headers={"X-Idempotency-Key": "k"})
    assert created.status_code in {200, 201}
    refused = browser.do("reopen", task_id)
    assert refused.status_code == 429
    assert "Too many requests" in refused.content.decode()


@pytest.mark.parametrize("accept", ["text/html", "*/*"])
def test_page_says_in_words_that_the_database_is_away(browser, monkeypatch, accept):
    def fail(**_asked):
        raise OperationalError("gone away")

    monkeypatch.setattr(page, "read_board", fail)
    answer = browser.get("/app/", headers={"Accept": accept})
    assert answer.status_code == 503
    assert int(answer["Retry-After"]) > 0
    assert "The service is not available at the moment." in answer.content.decode()
    assert ("<html" in answer.content.decode()) == (accept == "text/html")
