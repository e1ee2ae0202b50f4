"""What stands in the repository: the files of a checkout, parsed once."""

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("smartflow", "chat", "schedule", "tasks", "outbox")


@cache
def list_files() -> tuple[str, ...]:
    """Return every file that is, or could be, committed: not what .gitignore names."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(sorted({name for name in listed.split("\0") if name and (ROOT / name).is_file()}))


def list_python_files() -> list[str]:
    """Return every Python file but migrations, which Django writes."""
    return [name for name in list_files() if name.endswith(".py") and "/migrations/" not in name]


def list_product_files() -> list[str]:
    """Return the Python files of the product's packages, migrations left out."""
    return [name for name in list_python_files() if name.split("/")[0] in PACKAGES]


@cache
def read(name: str) -> str:
    """Return a file's text."""
    return (ROOT / name).read_text(encoding="utf-8")


@cache
def parse(name: str) -> ast.Module:
    """Return a Python file's syntax tree."""
    return ast.parse(read(name), filename=name)


def is_function(node: ast.AST) -> bool:
    """Whether the node defines a function."""
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
