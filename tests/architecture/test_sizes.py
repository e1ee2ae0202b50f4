"""No file and no function too long to be read at once."""

import ast

from tests.architecture.project_tree import is_function, list_python_files, parse, read

MOST_LINES, MOST_TEST_LINES = 400, 600
MOST_FUNCTION_LINES = 60


def test_files_stay_short():
    too_long = {}
    for name in list_python_files():
        limit = MOST_TEST_LINES if name.startswith("tests/") else MOST_LINES
        lines = len(read(name).splitlines())
        if lines > limit:
            too_long[name] = f"{lines} lines, at most {limit}"
    assert too_long == {}


def test_functions_stay_short():
    too_long = {
        f"{name}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for name in list_python_files()
        for node in ast.walk(parse(name))
        if is_function(node) and node.end_lineno - node.lineno + 1 > MOST_FUNCTION_LINES
    }
    assert too_long == {}
