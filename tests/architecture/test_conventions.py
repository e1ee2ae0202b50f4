"""Habits that neither ruff nor the borders can see."""

import ast
import re
import tomllib

from tests.architecture.project_tree import PACKAGES, is_function, list_files, list_product_files, parse, read

VAGUE_MODULES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers", "base_utils"}
# Words with another meaning here: append puts an event into a transaction, publish hands it to the transport.
VAGUE_VERBS = re.compile(r"(process|do|emit|fire|handle_data|publish_event|send_event)(_|$)")
HOOKS = {"process_request", "process_view", "process_exception", "process_template_response", "process_response"}
SIGNALS = ("django.dispatch", "django.db.models.signals", "django.core.signals", "django.contrib.auth.signals")
SIGNALS_BY_DUTY = "smartflow/api/django_threads.py"  # a handler of requests tells Django that one begins
TOP_LEVEL_FOLDERS = {*PACKAGES, "tests", "docs", "bench", "scripts"}


def test_top_level_holds_the_given_packages_only():
    folders = {name.split("/")[0] for name in list_files() if "/" in name and not name.startswith(".")}
    modules = {name for name in list_files() if "/" not in name and name.endswith(".py")}
    assert folders <= TOP_LEVEL_FOLDERS
    assert modules == {"manage.py"}


def test_modules_are_named_after_what_they_hold():
    named = {part.removesuffix(".py") for name in list_product_files() for part in name.split("/")[1:]}
    assert named & VAGUE_MODULES == set()


def test_functions_are_named_after_what_they_do():
    vague = [
        f"{name}:{node.lineno} {node.name}"
        for name in list_product_files()
        for node in ast.walk(parse(name))
        if is_function(node) and VAGUE_VERBS.match(node.name.lstrip("_")) and node.name not in HOOKS
    ]
    assert vague == []


def _writes_or_reads(name: str) -> bool:
    return name.startswith("outbox/") or re.search(r"(operations|queries)(/\w+)?\.py$", name) is not None


def _takes_by_position(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    return [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]


def test_public_functions_of_operations_queries_and_outbox_take_keywords():
    """One argument may be taken by position: `topic_for(event_type)` can't be mixed up. Operations never do."""
    wrong = []
    for name in filter(_writes_or_reads, list_product_files()):
        most = 0 if re.search(r"(operations|queries)(/\w+)?\.py$", name) else 1
        for node in parse(name).body:
            if is_function(node) and not node.name.startswith("_") and len(_takes_by_position(node)) > most:
                wrong.append(f"{name}:{node.lineno} {node.name}({', '.join(_takes_by_position(node))})")
    assert wrong == []


def test_public_functions_of_operations_queries_and_outbox_say_what_they_do():
    silent = [
        f"{name}:{node.lineno} {node.name}"
        for name in filter(_writes_or_reads, list_product_files())
        for node in parse(name).body
        if is_function(node) and not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert silent == []


def test_modules_say_what_they_are():
    silent = [name for name in list_product_files() if parse(name).body and not ast.get_docstring(parse(name))]
    assert silent == []


def test_models_are_imported_and_never_looked_up_by_name():
    looked_up = [
        f"{name}:{node.lineno}"
        for name in list_product_files()
        for node in ast.walk(parse(name))
        if isinstance(node, ast.Attribute) and node.attr == "get_model"
    ]
    assert looked_up == []


def test_apps_do_not_talk_by_signals():
    imports = [
        f"{name}:{node.lineno} {module}"
        for name in list_product_files()
        for node in ast.walk(parse(name))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in _modules(node)
        if module.startswith(SIGNALS) and name != SIGNALS_BY_DUTY
    ]
    assert imports == []


def _modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [f"{node.module}.{alias.name}" for alias in node.names]


def test_nothing_is_enqueued_beside_a_commit_but_the_hint_to_relays():
    """What is enqueued after a commit is lost with the process, an event row is not; a lost hint costs nothing."""
    enqueued = {
        f"{name}:{node.lineno} {node.attr}"
        for name in list_product_files()
        for node in ast.walk(parse(name))
        if isinstance(node, ast.Attribute)
        and node.attr in {"on_commit", "delay", "apply_async", "send_task"}
        # the hint; and the relay's next pass, which is sent beside no commit
        and (name, node.attr) not in {("outbox/wakeup.py", "on_commit"), ("outbox/jobs.py", "apply_async")}
    }
    assert enqueued == set()


def test_no_rule_of_the_house_is_silenced_in_place():
    silenced = re.compile(r"# noqa:.*\b(PLC0415|PLR0913|C901|TID251|T20|DTZ)")
    found = [f"{name}: {line.strip()}" for name in list_product_files() for line in read(name).splitlines()
             if silenced.search(line)]  # fmt: skip
    assert found == []


def test_nothing_is_left_to_be_done_later():
    mark = re.compile(rf"\b({'|'.join(('TO' + 'DO', 'FIX' + 'ME', 'HA' + 'CK'))})\b")
    assert [
        name for name in list_files() if name.endswith((".py", ".sh", ".md", ".html")) and mark.search(read(name))
    ] == []


def test_ruff_keeps_the_rules_the_house_relies_on():
    ruff = tomllib.loads(read("pyproject.toml"))["tool"]["ruff"]["lint"]
    assert {"PLC0415", "PLR0913", "C90", "TID", "DTZ", "T20"} <= set(ruff["select"])
    assert not {"PLC0415", "PLR0913", "C90", "TID", "TID251"} & set(ruff["ignore"])
    assert ruff["mccabe"]["max-complexity"] <= 8
    assert ruff["pylint"]["max-args"] <= 6
    assert "django.utils.timezone.now" in ruff["flake8-tidy-imports"]["banned-api"]
    relaxed = {path for path, rules in ruff["per-file-ignores"].items() if {"PLC0415", "PLR0913"} & set(rules)}
    assert relaxed <= {"tests/**", "bench/**"}


def test_warnings_are_errors():
    pytest_options = tomllib.loads(read("pyproject.toml"))["tool"]["pytest"]["ini_options"]
    assert pytest_options["filterwarnings"][0] == "error"


def test_mypy_is_strict():
    mypy = tomllib.loads(read("pyproject.toml"))["tool"]["mypy"]
    assert mypy["strict"] is True
    # drf-stubs and django-stubs know what a manager returns; without them "strict" checks half.
    assert set(mypy["plugins"]) == {"mypy_django_plugin.main", "mypy_drf_plugin.main"}
