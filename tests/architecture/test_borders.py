"""The contracts of .importlinter hold, and each of them would notice a violation."""

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.project_tree import PACKAGES, ROOT, list_product_files

LINT = Path(sys.executable).parent / "lint-imports"

# A line that must not be: where, what, and the contract that has to break.
VIOLATIONS = [
    ("schedule/apps.py", "import chat.operations", "Calls go down between the apps"),
    ("outbox/relay.py", "import smartflow.accounts.operations", "Calls go down between the apps"),
    ("smartflow/kernel/clock.py", "import smartflow.events", "Calls go down between the apps"),
    ("smartflow/api/envelope.py", "import outbox.append", "Calls go down between the apps"),
    ("chat/operations/turns.py", "import chat.api.serializers", "Calls go down inside an app"),
    ("chat/operations/turns.py", "import chat.llm.factory", "Calls go down inside an app"),
    ("chat/models.py", "import chat.queries", "Calls go down inside an app"),
    ("outbox/models.py", "import outbox.relay", "Calls go down inside the outbox"),
    ("outbox/transports/base.py", "import outbox.consumer", "Calls go down inside the outbox"),
    ("chat/queries.py", "import smartflow.accounts.models", "Only the doors of accounts are open to others"),
    ("chat/operations/turns.py", "import outbox.models", "Only the doors of the outbox are open to others"),
    ("smartflow/web/dashboard.py", "import chat.models", "Only the doors of chat are open to others"),
    ("chat/queries.py", "import tasks.apps", "Only the doors of tasks are open to others"),
    ("outbox/relay.py", "import confluent_kafka", "One module speaks to Kafka"),
    ("chat/runs/executor.py", "import openai", "One folder speaks to the model"),
    ("smartflow/kernel/text.py", "import django", "Pure modules know no framework"),
    ("chat/contracts.py", "from django.db import models", "Pure modules know no framework"),
]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(LINT), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the product that a test may spoil."""
    folder = tmp_path_factory.mktemp("borders")
    for name in (*list_product_files(), ".importlinter"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


def test_borders_hold(copy):
    result = lint(copy)
    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(("name", "line", "contract"), VIOLATIONS)
def test_borders_notice_a_violation(copy, name, line, contract):
    file = copy / name
    intact = file.read_text()
    file.write_text(f"{intact}\n{line}\n")
    try:
        result = lint(copy)
    finally:
        file.write_text(intact)
    assert result.returncode == 1, result.stdout + result.stderr
    assert f"{contract} BROKEN" in " ".join(result.stdout.split())


def test_borders_place_every_module_of_the_composition_root():
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    layers = contracts["importlinter:contract:apps"]["layers"].replace("|", " ").split()
    modules = {
        name.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".")
        for name in list_product_files()
        if name.startswith("smartflow/") and not name.endswith("/apps.py")
    } - {"smartflow", "smartflow.observability"}
    homeless = {module for module in modules if not any(f"{module}.".startswith(f"{layer}.") for layer in layers)}
    assert homeless == set()


def test_borders_cover_every_package():
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    assert contracts["importlinter"]["root_packages"].split() == list(PACKAGES)
    for section in contracts.sections():
        assert "ignore_imports" not in contracts[section] or section.endswith("-doors"), section
