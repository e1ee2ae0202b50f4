"""Formats of this language; see the package above."""
