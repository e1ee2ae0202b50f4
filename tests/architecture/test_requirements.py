"""What the product is given is pinned, the pins follow from the short lists, and no file names a package registry."""

import re

import pytest

from tests.architecture.project_tree import ROOT, list_files, read

GIVEN = {
    "django", "djangorestframework", "django-eventstream", "celery", "kombu", "confluent-kafka", "django-redis",
    "mysqlclient", "openai",
}  # fmt: skip
# In two parts, or this file would name them.
REGISTRIES = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"), ("files", "pythonhosted"), ("registry", "npmjs"), ("registry", "yarnpkg"),
        ("repo1", "maven"), ("repo", "maven"), ("deb", "debian"), ("security", "debian"), ("archive", "ubuntu"),
        ("proxy", "golang"), ("crates", "io"),
    )
]  # fmt: skip
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==(\S+)", re.MULTILINE)


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def direct(name):
    """The names of a requirements*.in."""
    lines = (line.split("#")[0].strip() for line in read(name).splitlines())
    return {normal(re.match(r"[A-Za-z0-9._-]+", line)[0]) for line in lines if line and not line.startswith("-")}


def pinned(name):
    """The names and versions of a requirements*.txt."""
    return {normal(package): version for package, version in PIN.findall(read(name))}


def asked_for(name, source):
    """The names that a requirements*.txt says its list asked for."""
    found = set()
    for block in re.split(r"\n(?=\S)", read(name)):
        pin = PIN.match(block)
        if pin and re.search(rf"-r {re.escape(source)}\b", block):
            found.add(normal(pin[1]))
    return found


def test_given_packages_are_pinned():
    assert GIVEN - set(pinned("requirements.txt")) == set()
    assert "pytest-django" in pinned("requirements-dev.txt")


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_pins_follow_from_the_list(name):
    assert asked_for(f"{name}.txt", f"{name}.in") == direct(f"{name}.in")


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_pin_has_a_hash(name):
    entries = [line for line in re.split(r"\n(?=[A-Za-z0-9])", read(name)) if PIN.match(line)]
    assert len(entries) > 10
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_both_files_agree_on_every_version():
    product, dev = pinned("requirements.txt"), pinned("requirements-dev.txt")
    assert {
        name: (product[name], dev[name]) for name in product.keys() & dev.keys() if product[name] != dev[name]
    } == {}


def test_our_packages_shadow_no_dependency():
    ours = {name.split("/")[0] for name in list_files() if name.endswith("/__init__.py")}
    assert ours & (set(pinned("requirements.txt")) | set(pinned("requirements-dev.txt"))) == set()


def test_no_file_names_a_package_registry():
    named = []
    for name in list_files():
        text = (ROOT / name).read_bytes().lower()
        named += [f"{name}: {host}" for host in REGISTRIES if host.encode() in text]
    assert named == []
