"""Every variable stands in .env.example and docs/configuration.md, with the default that the code gives it."""

import ast
import re
import runpy
import sys

import pytest

from smartflow import settings
from tests.architecture.project_tree import ROOT, list_files, parse, read

DOCUMENT = "docs/configuration.md"
SCRIPTS_SECTION = "## Scripts, tests and containers"
ROW = re.compile(r"^\| `([A-Z][A-Z_]+)` \|(.*)\|$", re.MULTILINE)
LINE = re.compile(r"^#([A-Z][A-Z_]+)=(.*)$", re.MULTILINE)
INTERFACE = {
    "PORT", "SMARTFLOW_DATA_DIR", "DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS", "CELERY_BROKER_URL",
    "OPENAI_BASE_URL", "OPENAI_API_KEY", "SMARTFLOW_MODEL_WORKER", "SMARTFLOW_MODEL_STRATEGIST", "SECRET_KEY",
    "JWT_ACCESS_SECRET", "JWT_REFRESH_SECRET", "SMARTFLOW_ADMIN_PASSWORD",
}  # fmt: skip


def documented(text):
    """Variable → the other cells of its row."""
    return {name: [cell.strip() for cell in re.split(r" \| ", rest.strip())] for name, rest in ROW.findall(text)}


APPLICATION_ROWS = documented(read(DOCUMENT).split(SCRIPTS_SECTION)[0])
SCRIPT_ROWS = documented(read(DOCUMENT).split(SCRIPTS_SECTION)[1])
EXAMPLE_LINES = dict(LINE.findall(read(".env.example")))


def defaults_in_code():
    """Variable → default, where settings.py writes it as a literal."""
    found = {}
    for node in ast.walk(parse("smartflow/settings.py")):
        is_read = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if not is_read or getattr(node.func.value, "id", "") != "ENV" or len(node.args) < 2:
            continue
        name, default = node.args[:2]
        if isinstance(name, ast.Constant) and not any(isinstance(part, ast.Name) for part in ast.walk(default)):
            found[name.value] = eval(compile(ast.Expression(default), "settings.py", "eval"))
    return {name: str(value) for name, value in found.items() if not isinstance(value, tuple)}


def names_in_scripts():
    """What scripts, checks, make and compose read and SmartFlow does not."""
    found = set()
    for name in list_files():
        if name.startswith(("scripts/", ".ci/", "bench/")) or name == "Makefile":
            found |= set(re.findall(r"\bSMARTFLOW_[A-Z_]+[A-Z]\b", read(name)))
    found |= set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", read("docker-compose.yml")))
    found |= set(re.findall(r"^([A-Z_]+) \?=", read("Makefile"), re.MULTILINE))
    return found - settings.ENV.names


def test_document_lists_every_variable_and_no_other():
    assert set(APPLICATION_ROWS) == settings.ENV.names
    assert INTERFACE - set(APPLICATION_ROWS) == set()


def test_document_lists_every_variable_of_the_scripts_and_no_other():
    assert set(SCRIPT_ROWS) == names_in_scripts()


def test_example_file_lists_every_variable_and_no_other():
    assert set(EXAMPLE_LINES) == settings.ENV.names | names_in_scripts()


def test_example_file_sets_nothing_by_itself():
    lines = read(".env.example").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []


@pytest.mark.parametrize("name", sorted(APPLICATION_ROWS | SCRIPT_ROWS))
def test_document_says_default_unit_example_and_purpose(name):
    default, unit, example, purpose = (APPLICATION_ROWS | SCRIPT_ROWS)[name]
    assert default
    assert unit
    assert re.fullmatch(r"`.+`", example)
    assert purpose.endswith(".")


@pytest.mark.parametrize("name", sorted(defaults_in_code()))
def test_default_is_the_same_in_code_document_and_example_file(name):
    default = defaults_in_code()[name]
    shown = APPLICATION_ROWS[name][0]
    assert shown == (f"`{default}`" if default else "empty")
    assert EXAMPLE_LINES[name] == default


@pytest.mark.parametrize("name", sorted(set(APPLICATION_ROWS) - {"SMARTFLOW_DATA_DIR"}))
def test_example_is_accepted(monkeypatch, tmp_path, name):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    for variable in settings.ENV.names:
        monkeypatch.delenv(variable, raising=False)
    for secret in ("SECRET_KEY", "JWT_ACCESS_SECRET", "JWT_REFRESH_SECRET"):
        monkeypatch.setenv(secret, f"{secret}-{'x' * 32}")
    monkeypatch.setenv("SMARTFLOW_DATA_DIR", str(tmp_path))
    example = APPLICATION_ROWS[name][2].strip("`")
    monkeypatch.setenv(name, "x" * 48 if example.startswith("$(") else example)
    assert name in runpy.run_path(str(ROOT / "smartflow" / "settings.py"))["ENV"].names
