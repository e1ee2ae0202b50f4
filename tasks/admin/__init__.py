"""The operators' pages of tasks and task classes."""

from tasks.admin.classes import TaskClassAdmin
from tasks.admin.tasks import TaskAdmin

__all__ = ["TaskAdmin", "TaskClassAdmin"]
