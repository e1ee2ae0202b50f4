"""The kinds of anticipated failure. Domain code raises them; one handler at the edge turns them into HTTP.

A concrete error stands beside the function that raises it and adds its stable `code` (smartflow/api/codes.py) and
`message`. `message` is shown to users, so it is marked for translation and holds no internals.
"""

from typing import Any, ClassVar

from smartflow.kernel.text import noop as _


class DomainError(Exception):
    """An anticipated failure; never raised itself."""

    code: ClassVar[str]
    message: ClassVar[str]

    def __init__(self, detail: str = "", *, fields: dict[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail or self.message)
        self.detail = detail
        self.fields = fields or {}
        self.extra = extra


class Invalid(DomainError):
    """The input can never be accepted as it is."""

    code = "40005"
    message = _("The request is not valid.")


class Forbidden(DomainError):
    """The actor may not do this."""

    code = "40300"
    message = _("You may not do this.")


class NotFound(DomainError):
    """The thing does not exist, or not for this actor."""

    code = "40400"
    message = _("Not found.")


class Conflict(DomainError):
    """The thing's state does not allow this now."""

    code = "40900"
    message = _("This is not possible in the present state.")


class Unavailable(DomainError):
    """A part that is needed does not answer; the same request may succeed later."""

    code = "50300"
    message = _("The service is not available at the moment. Please try again shortly.")
