"""Migrations say what they are for, none is missing, and Django finds nothing to complain about."""

import re

import pytest
from django.core.management import call_command
from django.db.migrations.loader import MigrationLoader

from tests.architecture.project_tree import PACKAGES, list_files

NAMED = re.compile(r"\d{4}_[a-z0-9]+(_[a-z0-9]+)+")
GENERATED = re.compile(r"_auto_\d|_and_more$|^\d{4}_initial$|^\d{4}_alter_")


def own_migrations():
    names = [name for name in list_files() if "/migrations/" in name and name.split("/")[0] in PACKAGES]
    return [name for name in names if name.endswith(".py") and not name.endswith("__init__.py")]


def test_migrations_are_named_by_intent():
    stems = {name: name.rsplit("/", 1)[1].removesuffix(".py") for name in own_migrations()}
    assert stems
    assert [name for name, stem in stems.items() if not NAMED.fullmatch(stem) or GENERATED.search(stem)] == []


def test_migrations_of_an_app_stand_in_one_line():
    assert MigrationLoader(None, ignore_no_migrations=True).detect_conflicts() == {}
    numbers = [(name.rsplit("/", 1)[0], name.rsplit("/", 1)[1][:4]) for name in own_migrations()]
    assert len(numbers) == len(set(numbers))


def test_migrations_can_be_taken_back():
    """Reversible, or an explicit no-op: a release that fails must not need a restored backup."""
    loader = MigrationLoader(None, ignore_no_migrations=True)
    labels = {name.split("/migrations/")[0].rsplit("/", 1)[-1] for name in own_migrations()}
    stuck = [
        f"{label}.{name}: {operation.describe()}"
        for (label, name), migration in loader.disk_migrations.items()
        for operation in migration.operations
        if label in labels and not operation.reversible
    ]
    assert stuck == []


@pytest.mark.django_db
def test_no_migration_is_missing(capsys):
    call_command("makemigrations", check_changes=True, dry_run=True, verbosity=1)
    assert "No changes detected" in capsys.readouterr().out


@pytest.mark.django_db
def test_system_check_finds_nothing(capsys):
    call_command("check", fail_level="WARNING", databases=["default"])
    assert "no issues" in capsys.readouterr().out
