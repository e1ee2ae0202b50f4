"""Figures of the product beside what the same machine does without it. README.md says what is measured."""
