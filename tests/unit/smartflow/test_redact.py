"""smartflow/kernel/redact.py: what may be kept of an error's text."""

from smartflow.kernel.redact import describe_error


class Unspeakable(Exception):
    def __str__(self):
        raise RecursionError("no text")


def test_describe_error_says_so_when_the_error_has_no_text():
    assert describe_error(Unspeakable()) == "Unspeakable: (its text cannot be made: RecursionError)"
