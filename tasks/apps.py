"""Tasks and task classes."""

from django.apps import AppConfig


class TasksConfig(AppConfig):
    name = "tasks"
