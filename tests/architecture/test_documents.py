"""Links in the documents lead somewhere, and every test that a promise names exists."""

import ast
import re
from pathlib import Path

import pytest

from tests.architecture.project_tree import ROOT, is_function, list_files, parse, read

DOCUMENTS = [name for name in list_files() if name.endswith(".md") and not name.startswith("tests/")]
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
PROOF = re.compile(r"\[`?(test_\w+)`?\]\(([^)#\s]+\.py)\)")
NODE = re.compile(r"([\w./-]+\.py)::([\w:]+)")
HEADING = re.compile(r"^#+ +(.+?) *#*$", re.MULTILINE)


def prose(name):
    return FENCE.sub("", read(name))


def anchors(name):
    """The anchors that a page's headings give it, as the forge makes them."""
    titles = HEADING.findall(prose(name))
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def is_inside(target):
    return re.match(r"[a-z]+:", target) is None


def test_documents_are_found():
    assert "docs/configuration.md" in DOCUMENTS


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_to_files_and_headings_of_the_repository(name):
    """A file that is ignored or never added is there for its author only."""
    kept = set(list_files())
    folders = {str(parent) for file in kept for parent in Path(file).parents}
    broken = []
    for target in filter(is_inside, LINK.findall(prose(name))):
        path, _, anchor = target.partition("#")
        page = str((ROOT / name).parent.joinpath(path).resolve().relative_to(ROOT)) if path else name
        is_found = page in kept | folders
        if not is_found or (anchor and page.endswith(".md") and anchor not in anchors(page)):
            broken.append(target)
    assert broken == []


def defined_in(name):
    """Names of a test file's functions and classes, methods as Class::method."""
    found = set()
    for node in parse(name).body:
        if is_function(node):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {node.name, *(f"{node.name}::{inner.name}" for inner in node.body if is_function(inner))}
    return found


def named_tests(name):
    """The tests that a page names, as [test_x](path) or path::test_x."""
    links = [(path, test) for test, path in PROOF.findall(read(name))]
    return [*links, *NODE.findall(read(name))]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_tests_that_a_document_names_exist(name):
    missing = []
    for path, test in named_tests(name):
        near = (ROOT / name).parent.joinpath(path).resolve()
        file = near if near.is_file() else ROOT / path
        if not file.is_file() or test not in defined_in(str(file.relative_to(ROOT))):
            missing.append(f"{path}::{test}")
    assert missing == []


def test_every_guarantee_names_its_proof():
    rows = [line for line in read("docs/guarantees.md").splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith(("| Promise", "|--"))]
    assert len(promises) > 10
    assert [row for row in promises if not re.search(r"\]\(\.\./tests/[^)]+\.py\)", row)] == []


def test_decisions_are_numbered_as_their_files_are():
    records = [name for name in list_files() if name.startswith("docs/adr/") and name != "docs/adr/README.md"]
    numbers = []
    for name in records:
        match = re.fullmatch(r"docs/adr/(\d{4})-[a-z0-9-]+\.md", name)
        assert match, name
        title = read(name).splitlines()[0]
        assert re.match(rf"# (ADR )?0*{int(match[1])}\b", title), f"{name}: {title}"
        numbers.append(int(match[1]))
    assert numbers == list(range(1, len(numbers) + 1))


def test_decisions_say_when_they_would_be_wrong():
    for name in list_files():
        if name.startswith("docs/adr/0"):
            text = read(name)
            assert "know it is wrong when" in " ".join(text.split()), name
            assert len(text.splitlines()) <= 60, name
