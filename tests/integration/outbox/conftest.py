"""Fixtures of the outbox's tests."""

from tests.outbox_fixtures import clock, handler, nudges, short_look

__all__ = ["clock", "handler", "nudges", "short_look"]
