"""docker-compose.yml and the Dockerfile, checked without an engine: the schema, and what the schema cannot know."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from smartflow import settings

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = Path(__file__).parent / "compose_schema" / "compose-spec.json"
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "smartflow"}
EXPECTED = {"mariadb", "redis", "kafka", "migrate", "web", "worker", "beat", "consumer", "executor"}
SECRET = re.compile(r"SECRET|PASSWORD|API_KEY")
INTERPOLATED = re.compile(r"(?<!\$)\$\{([A-Z_]+)")


def read_example_names() -> set[str]:
    path = ROOT / ".env.example"
    if not path.exists():
        pytest.skip(".env.example is not there yet")
    return set(re.findall(r"^#?\s*([A-Z][A-Z_]+)=", path.read_text(), re.MULTILINE))


def list_environments() -> list[tuple[str, str, str]]:
    return [
        (service, name, "" if value is None else str(value))
        for service, definition in SERVICES.items()
        for name, value in definition.get("environment", {}).items()
    ]


def test_compose_file_follows_the_compose_specification() -> None:
    schema = json.loads(SCHEMA.read_text())
    errors = jsonschema.Draft202012Validator(schema).iter_errors(COMPOSE)
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


def test_compose_schema_rejects_a_misspelt_key() -> None:
    schema = json.loads(SCHEMA.read_text())
    wrong = {"services": {"web": {"image": "smartflow", "healthchek": {}}}}
    assert not jsonschema.Draft202012Validator(schema).is_valid(wrong)


def test_compose_file_runs_every_part() -> None:
    assert set(SERVICES) == EXPECTED


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_service_has_a_health_check_unless_it_is_one_shot(name: str) -> None:
    service = SERVICES[name]
    is_one_shot = any(
        other.get("depends_on", {}).get(name, {}).get("condition") == "service_completed_successfully"
        for other in SERVICES.values()
    )
    assert is_one_shot != ("healthcheck" in service)
    assert service["restart"] == ("no" if is_one_shot else "unless-stopped")


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_service_waits_only_for_states_its_dependencies_can_reach(name: str) -> None:
    for dependency, wait in SERVICES[name].get("depends_on", {}).items():
        has_check = "healthcheck" in SERVICES[dependency]
        assert wait["condition"] == ("service_healthy" if has_check else "service_completed_successfully")


def test_foreign_images_are_pinned_to_a_patch_version() -> None:
    foreign = {name: service["image"] for name, service in SERVICES.items() if name not in OURS}
    assert all(re.search(r":\d+\.\d+\.\d+(-\w+)?$", image) for image in foreign.values()), foreign


def test_our_image_never_runs_as_root() -> None:
    users = re.findall(r"^USER\s+(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert users
    assert users[-1].split(":")[0].isdigit()
    assert int(users[-1].split(":")[0]) > 0
    assert {service["user"] for service in OURS.values()} == {users[-1]}


def test_image_holds_every_top_level_package() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "bench"}
    copied = set(re.findall(r"^COPY (\w+) \./\1$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    sent = set(re.findall(r"^!(\w+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert packages <= copied <= sent


def test_executors_are_asked_for_by_name_and_may_drain() -> None:
    executor = SERVICES["executor"]
    assert executor["profiles"] == ["executors"]
    assert executor["command"][1:] == ["manage.py", "run_executor"]
    assert int(executor["stop_grace_period"].removesuffix("s")) > settings.CHAT_DRAIN_SECONDS
    assert all("CHAT_EXECUTORS" in SERVICES[name]["environment"] for name in ("web", "executor"))


def test_named_volumes_are_declared_and_used() -> None:
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert used == set(COMPOSE["volumes"])


def test_variables_are_in_the_example_file() -> None:
    names = set(INTERPOLATED.findall(TEXT)) | {name for service, name, _ in list_environments() if service in OURS}
    assert names - read_example_names() == set()


def test_secrets_come_from_the_environment_only() -> None:
    secrets = {(service, name, value) for service, name, value in list_environments() if SECRET.search(name)}
    given = {name for _, name, value in secrets if value and not re.fullmatch(r"\$\{\w+:\?[^}]+\}", value)}
    assert given == {"MARIADB_RANDOM_ROOT_PASSWORD"}


def test_urls_hold_no_literal_password() -> None:
    urls = [value for _, _, value in list_environments() if "@" in value and "://" in value]
    assert urls
    assert all(re.search(r"://\w+:\$\{\w+:\?[^}]+\}@", url) for url in urls), urls
