"""Shapes of requests and answers of the task-class routes."""

from typing import Any

from rest_framework import serializers

from smartflow.api.fields import RowId
from smartflow.api.serializers import StrictSerializer
from tasks.contracts import ClassDraft, ClassMode, ClassView, ItemDraft, Level, Strategy, SubjectType
from tasks.operations.class_rules import CONTENT_MAX_CHARACTERS, MOST_ITEMS, NAME_MAX_CHARACTERS


class EmbeddedTime(StrictSerializer):
    """Where an item stands in the timetable."""

    week = serializers.IntegerField(min_value=1, max_value=25)
    day_of_week = serializers.IntegerField(min_value=1, max_value=7)
    section_from = serializers.IntegerField(min_value=1, max_value=12)
    section_to = serializers.IntegerField(min_value=1, max_value=12)


class ClassConfig(StrictSerializer):
    """How a planner may spread the class."""

    total_slots = serializers.IntegerField(min_value=1, max_value=10_000)
    allow_filler_course = serializers.BooleanField(default=True)
    strategy = serializers.ChoiceField(choices=list(Strategy), default=Strategy.STEADY)
    excluded_slots = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=6),
        max_length=6,
        default=list,
        help_text="Blocks of two sections: 1 is sections 1-2, 6 is 11-12.",
    )
    excluded_days_of_week = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=7), max_length=7, default=list, help_text="1 is Monday."
    )


class NewItem(StrictSerializer):
    """An item to be added."""

    order = serializers.IntegerField(min_value=1, max_value=2**31 - 1, help_text="Items are numbered anew from 1.")
    content = serializers.CharField(max_length=CONTENT_MAX_CHARACTERS)
    embedded_time = EmbeddedTime(required=False, allow_null=True, default=None)


class ChangedItem(NewItem):
    """An item as it shall be."""

    id = RowId(required=False, allow_null=True, default=None, help_text="Left out: the item is added.")


class ClassFields(StrictSerializer):
    """What a task class is made of, without its items."""

    name = serializers.CharField(max_length=NAME_MAX_CHARACTERS)
    mode = serializers.ChoiceField(choices=list(ClassMode))
    start_date = serializers.DateField(required=False, allow_null=True, default=None)
    end_date = serializers.DateField(required=False, allow_null=True, default=None)
    subject_type = serializers.ChoiceField(choices=list(SubjectType), default="", allow_blank=True)
    difficulty_level = serializers.ChoiceField(choices=list(Level), default="", allow_blank=True)
    cognitive_intensity = serializers.ChoiceField(choices=list(Level), default="", allow_blank=True)
    config = ClassConfig()


class ClassCreate(ClassFields):
    """A task class to be added."""

    items = serializers.ListField(child=NewItem(), allow_empty=False, max_length=MOST_ITEMS)


class ClassUpdate(ClassFields):
    """A task class as it shall be: items that are left out are deleted."""

    task_class_id = RowId()
    items = serializers.ListField(child=ChangedItem(), allow_empty=False, max_length=MOST_ITEMS)


class OneClass(StrictSerializer):
    """Names a task class."""

    task_class_id = RowId()


class OneItem(StrictSerializer):
    """Names an item."""

    task_item_id = RowId()


class ItemShape(serializers.Serializer[Any]):
    """One item; without embedded_time it is not arranged."""

    id = serializers.IntegerField()
    order = serializers.IntegerField(help_text="1 to n, without gaps.")
    content = serializers.CharField()
    embedded_time = EmbeddedTime(allow_null=True)
    status = serializers.IntegerField(min_value=1, max_value=2, help_text="1 not arranged, 2 arranged.")


class ClassBrief(serializers.Serializer[Any]):
    """One task class in a list."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    mode = serializers.ChoiceField(choices=list(ClassMode))
    strategy = serializers.ChoiceField(choices=list(Strategy))
    start_date = serializers.DateField(allow_null=True)
    end_date = serializers.DateField(allow_null=True)
    total_slots = serializers.IntegerField()
    subject_type = serializers.CharField()
    difficulty_level = serializers.CharField()
    cognitive_intensity = serializers.CharField()


class ClassListShape(serializers.Serializer[Any]):
    """The user's task classes, the newest first."""

    task_classes = ClassBrief(many=True)


class ClassShape(serializers.Serializer[Any]):
    """One task class with its items, in the form in which it is sent."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    mode = serializers.ChoiceField(choices=list(ClassMode))
    start_date = serializers.DateField(allow_null=True)
    end_date = serializers.DateField(allow_null=True)
    subject_type = serializers.CharField()
    difficulty_level = serializers.CharField()
    cognitive_intensity = serializers.CharField()
    config = ClassConfig(source="*")
    items = ItemShape(many=True)


class DeletedItemShape(serializers.Serializer[Any]):
    """An item that was deleted."""

    task_item_id = serializers.IntegerField()


class DeletedClassShape(serializers.Serializer[Any]):
    """A task class that was deleted."""

    task_class_id = serializers.IntegerField()


def draft_of(values: dict[str, Any]) -> ClassDraft:
    """Return the class that a checked body describes."""
    config = values["config"]
    return ClassDraft(
        name=values["name"],
        mode=ClassMode(values["mode"]),
        start_date=values["start_date"],
        end_date=values["end_date"],
        subject_type=values["subject_type"],
        difficulty_level=values["difficulty_level"],
        cognitive_intensity=values["cognitive_intensity"],
        total_slots=config["total_slots"],
        allow_filler_course=config["allow_filler_course"],
        strategy=Strategy(config["strategy"]),
        excluded_slots=tuple(config["excluded_slots"]),
        excluded_days_of_week=tuple(config["excluded_days_of_week"]),
        items=tuple(ItemDraft(**item) for item in values["items"]),
    )


def class_body(view: ClassView) -> dict[str, Any]:
    """Return a task class in the form of ClassShape."""
    return dict(ClassShape(view).data)
