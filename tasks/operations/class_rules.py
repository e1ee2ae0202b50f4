"""What a task class must be like before it is written; each refusal names the field and the bound. Pure."""

from collections.abc import Sequence

from smartflow.kernel.errors import Invalid
from smartflow.kernel.text import noop as _
from tasks.contracts import ClassDraft, ClassMode, ItemDraft

NAME_MAX_CHARACTERS = 255
CONTENT_MAX_CHARACTERS = 2000
MOST_ITEMS = 500
MOST_SLOTS = 10_000


class ClassFieldInvalid(Invalid):
    """A value is outside its bound."""

    message = _("Something in the task class is not valid.")


class ClassFieldMissing(Invalid):
    """A value that every class needs is missing."""

    code = "40004"
    message = _("Something required is missing.")


class AutoNeedsDates(Invalid):
    """A planner can't work without a window."""

    code = "40044"
    message = _("The automatic mode needs a start date and an end date.")


class DatesReversed(Invalid):
    """The window ends before it starts."""

    code = "40045"
    message = _("The start date must not be after the end date.")


def check_draft(*, draft: ClassDraft) -> None:
    """Raise for the first thing that a task class must not be: one of the errors above, with its field."""
    _check_name(draft)
    _check_dates(draft)
    _check_numbers(draft)
    _check_items(draft.items)


def _check_name(draft: ClassDraft) -> None:
    if not draft.name.strip():
        raise ClassFieldMissing(fields={"name": _("Give the task class a name.")})
    if len(draft.name) > NAME_MAX_CHARACTERS:
        raise ClassFieldInvalid(fields={"name": _("Give a name of at most 255 characters.")})


def _check_dates(draft: ClassDraft) -> None:
    missing = [name for name in ("start_date", "end_date") if getattr(draft, name) is None]
    if draft.mode == ClassMode.AUTO and missing:
        raise AutoNeedsDates(fields=dict.fromkeys(missing, AutoNeedsDates.message))
    if draft.start_date and draft.end_date and draft.start_date > draft.end_date:
        raise DatesReversed(fields={"end_date": DatesReversed.message})


def _check_numbers(draft: ClassDraft) -> None:
    if not 1 <= draft.total_slots <= MOST_SLOTS:
        raise ClassFieldInvalid(fields={"config.total_slots": _("Give a number from 1 to 10000.")})
    if not set(draft.excluded_slots) <= set(range(1, 7)):
        text = _("Give numbers from 1 to 6: 1 stands for sections 1-2, 6 for sections 11-12.")
        raise ClassFieldInvalid(fields={"config.excluded_slots": text})
    if not set(draft.excluded_days_of_week) <= set(range(1, 8)):
        text = _("Give numbers from 1 to 7: 1 stands for Monday.")
        raise ClassFieldInvalid(fields={"config.excluded_days_of_week": text})


def _check_items(items: Sequence[ItemDraft]) -> None:
    if not items:
        raise ClassFieldMissing(fields={"items": _("Give at least one item.")})
    if len(items) > MOST_ITEMS:
        raise ClassFieldInvalid(fields={"items": _("Give at most 500 items.")})
    for index, item in enumerate(items):
        _check_item(f"items.{index}", item)
    if len({item.order for item in items}) < len(items):
        raise ClassFieldInvalid(fields={"items": _("Give each item an order of its own.")})
    ids = [item.id for item in items if item.id is not None]
    if len(set(ids)) < len(ids):
        raise ClassFieldInvalid(fields={"items": _("Name each item once.")})


def _check_item(path: str, item: ItemDraft) -> None:
    if item.order < 1:
        raise ClassFieldInvalid(fields={f"{path}.order": _("Give a number of 1 or more.")})
    if not item.content.strip():
        raise ClassFieldMissing(fields={f"{path}.content": _("Say what this item is about.")})
    if len(item.content) > CONTENT_MAX_CHARACTERS:
        raise ClassFieldInvalid(fields={f"{path}.content": _("Give at most 2000 characters.")})
