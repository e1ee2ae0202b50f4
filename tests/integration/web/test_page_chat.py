"""The chat panel's template and its scripts: each names what the other has, and no text of a model becomes markup."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from django.template.loader import render_to_string

STATIC = Path(__file__).resolve().parents[3] / "smartflow" / "web" / "static" / "app"
SCRIPTS = sorted(STATIC.glob("chat*.js"))
MOST_LINES = 200
# What turns text into markup or code.
DANGEROUS = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|setHTML|createContextualFragment|\beval\(|Function\("
)
# Chosen by what the server says: the ages of conversations, and how an answer ended.
COMPUTED = {f"group-{age}" for age in ("today", "week", "month", "older")} | {
    f"heard-{state}" for state in ("finished", "stopped", "failed")
}


class _Panel(HTMLParser):
    """What the template has that scripts look for."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: set[str] = set()
        self.actions: set[str] = set()
        self.words: set[str] = set()
        self.unnamed: list[str] = []
        self.styled: list[str] = []
        self._button: dict[str, str | None] | None = None

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        for kept, name in ((self.parts, "data-part"), (self.actions, "data-action"), (self.words, "data-word")):
            if found.get(name):
                kept.add(found[name])
        if "style" in found or any(name.startswith("on") for name in found) or tag in ("script", "style"):
            self.styled.append(tag)
        if tag == "button":
            self._button = found

    def handle_data(self, data):
        if data.strip():
            self._button = None

    def handle_endtag(self, tag):
        if tag == "button" and self._button is not None:
            if not self._button.get("aria-label"):
                self.unnamed.append(str(self._button))
            self._button = None


@pytest.fixture(scope="module")
def panel():
    panel = _Panel()
    panel.feed(render_to_string("app/chat.html"))
    return panel


@pytest.fixture(scope="module")
def code():
    return "\n".join(path.read_text() for path in SCRIPTS)


def test_panel_has_every_part_that_its_scripts_look_for(panel, code):
    looked_for = set(re.findall(r"\[data-part=([\w-]+)\]", code)) | set(re.findall(r"\bpart\(\"([\w-]+)\"\)", code))

    assert looked_for == panel.parts


def test_panel_has_every_word_that_its_scripts_say_and_no_other(panel, code):
    said = set(re.findall(r"\bsay\(\s*\"([\w-]+)\"", code))
    said |= {word for pair in re.findall(r"say\([\w.]+ \? \"([\w-]+)\" : \"([\w-]+)\"\)", code) for word in pair}

    assert said | COMPUTED == panel.words


def test_every_action_of_the_panel_is_acted_on(panel, code):
    table = re.search(r"const acts = \{(.*?)\n  \};", code, re.DOTALL)[1]
    acted_on = set(re.findall(r"^    ([\w-]+):", table, re.MULTILINE))
    acted_on |= set(re.findall(r"\[data-action=([\w-]+)\]", code)) | {"earlier", "later"}

    assert panel.actions <= acted_on


def test_panel_names_each_button_and_styles_or_runs_nothing_inline(panel):
    assert panel.unnamed == []
    assert panel.styled == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script_is_small_and_makes_no_markup_of_text(script):
    text = script.read_text()

    assert len(text.splitlines()) <= MOST_LINES
    assert DANGEROUS.findall(text) == []
    assert all((STATIC / name).exists() for name in re.findall(r"from \"\./([\w.-]+)\"", text))
