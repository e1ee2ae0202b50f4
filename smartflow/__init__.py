"""The composition root and the ground floor. Importing it makes the Celery application known to every process."""

from smartflow.celery import app as celery_app

__all__ = ["celery_app"]
