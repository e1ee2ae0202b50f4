"""Courses, the schedule, planning and active scheduling."""

from django.apps import AppConfig


class ScheduleConfig(AppConfig):
    name = "schedule"
