"""Every code an answer can carry: what it means and the HTTP status that tells the truth about it.

The one place that joins the two: domain errors carry a code, the edge looks its row up here. Frameworks are not
needed to read it; the edge translates `meaning`.
"""

from dataclasses import dataclass

from smartflow.kernel.text import noop as _

OK = "10000"
MISSING = "40004"
WRONG = "40005"
TOO_LONG = "40006"
TOKEN_MISSING = "40009"  # noqa: S105 - a code, not a secret
TOKEN_INVALID = "40011"  # noqa: S105
TOO_MANY_REQUESTS = "40033"
FORBIDDEN = "40300"
NOT_FOUND = "40400"
METHOD_NOT_ALLOWED = "40500"
NOT_ACCEPTABLE = "40600"
BODY_TOO_LARGE = "41300"
UNSUPPORTED_MEDIA_TYPE = "41500"
UNAVAILABLE = "50300"
UNEXPECTED = "500"

# What any request that needs a token may be answered with.
AUTHENTICATION_CODES = (TOKEN_MISSING, TOKEN_INVALID, "40012", "40016", "40017")

# What a write that needs an idempotency key may be answered with besides.
IDEMPOTENCY_CODES = ("40037", "40038", "42200", WRONG)


@dataclass(frozen=True)
class Code:
    """One row of the table."""

    code: str
    http_status: int
    meaning: str


_ROWS = (
    Code(OK, 200, _("success")),
    Code("10001", 200, _("You have no tasks yet.")),
    Code("10002", 200, _("There is no ongoing or upcoming schedule.")),
    Code("10003", 200, _("The task is already deleted.")),
    Code("40001", 401, _("The username is unknown.")),
    Code("40002", 401, _("The password is wrong.")),
    Code("40003", 409, _("This username is taken. Choose another one.")),
    Code(MISSING, 400, _("Something required is missing.")),
    Code(WRONG, 400, _("Something in the request is not valid.")),
    Code(TOO_LONG, 400, _("Something in the request is too long.")),
    Code("40007", 401, _("The username or the password is wrong.")),
    Code("40008", 400, _("The gender is not valid.")),
    Code(TOKEN_MISSING, 401, _("Sign in first: the access token is missing.")),
    Code("40010", 401, _("The token is signed by a method that is not accepted.")),
    Code(TOKEN_INVALID, 401, _("The access token is not valid or has expired.")),
    Code("40012", 401, _("The token's claims are not valid.")),
    Code("40013", 401, _("The token names another user.")),
    Code("40014", 401, _("Sign in to do this.")),
    Code("40015", 401, _("The refresh token is not valid any more. Sign in again.")),
    Code("40016", 401, _("This is the wrong kind of token.")),
    Code("40017", 401, _("This session has ended. Sign in again.")),
    Code("40018", 400, _("The priority is not valid.")),
    Code("40019", 400, _("The course is not valid.")),
    Code("40020", 404, _("The task class does not exist.")),
    Code("40021", 403, _("You may not use this task class.")),
    Code("40022", 403, _("The task-class item is not yours.")),
    Code("40023", 400, _("The date is outside this semester.")),
    Code("40024", 403, _("The course is not yours.")),
    Code("40025", 409, _("The course already hosts another task block.")),
    Code("40026", 409, _("It conflicts with your schedule.")),
    Code("40027", 404, _("The course does not exist.")),
    Code("40028", 400, _("The time does not match the course.")),
    Code("40029", 409, _("The course is already in your schedule.")),
    Code("40030", 400, _("The week is out of range.")),
    Code("40031", 404, _("The schedule event does not exist.")),
    Code("40032", 409, _("This schedule hosts no embedded task.")),
    Code(TOO_MANY_REQUESTS, 429, _("Too many requests. Wait a moment.")),
    Code("40034", 409, _("The task-class item is already arranged.")),
    Code("40035", 409, _("The task is not embedded in any schedule.")),
    Code("40036", 404, _("The task-class item does not exist.")),
    Code("40037", 400, _("The X-Idempotency-Key header is missing.")),
    Code("40038", 409, _("The same request is still in progress.")),
    Code("40039", 403, _("The task class is not yours.")),
    Code("40040", 404, _("The task class does not exist.")),
    Code("40041", 400, _("The section number is not valid.")),
    Code("40042", 400, _("The week or the day of the week is not valid.")),
    Code("40043", 400, _("The section range is reversed.")),
    Code("40044", 400, _("Something required for automatic scheduling is missing.")),
    Code("40045", 400, _("The date range is reversed.")),
    Code("40046", 409, _("The task class is not in automatic mode.")),
    Code("40047", 409, _("There is not enough time for automatic scheduling.")),
    Code("40048", 400, _("The item does not belong to that task class.")),
    Code("40049", 400, _("The item is placed outside the time range.")),
    Code("40050", 404, _("The task does not exist.")),
    Code("40051", 429, _("Your token quota is used up.")),
    Code("40052", 409, _("The task is not completed.")),
    Code("40053", 404, _("The schedule preview does not exist or has expired.")),
    Code("40054", 400, _("The request needs a conversation_id.")),
    Code("40055", 404, _("The memory item does not exist.")),
    Code("40056", 400, _("The memory type is not valid.")),
    Code("40057", 400, _("The memory content is empty or not valid.")),
    Code("40058", 404, _("The schedule state does not exist or has expired.")),
    Code("40059", 400, _("The week or day is outside the planning window.")),
    Code("40060", 400, _("The task_item_id is not part of the schedule state.")),
    Code("40061", 400, _("The embed_course_event_id is not part of the schedule state.")),
    Code("40062", 400, _("A task_item_id appears twice.")),
    Code("40063", 400, _("The update names no field to change.")),
    Code("40064", 403, _("The human verification was not passed.")),
    Code(FORBIDDEN, 403, _("You may not do this.")),
    Code(NOT_FOUND, 404, _("Not found.")),
    Code("40401", 404, _("The conversation does not exist.")),
    Code("40402", 404, _("This answer does not exist.")),
    Code(METHOD_NOT_ALLOWED, 405, _("This method is not allowed here.")),
    Code(NOT_ACCEPTABLE, 406, _("The requested format is not offered; ask for application/json.")),
    Code("40900", 409, _("This is not possible in the present state.")),
    Code("40910", 409, _("This conversation already has a live run.")),
    Code("40911", 409, _("This answer is being continued elsewhere.")),
    Code("40912", 409, _("Only the last answer can be made anew.")),
    Code("40913", 409, _("Only the last answer can be continued, and only when it was interrupted.")),
    Code("40914", 409, _("This answer has no text, so it cannot be chosen.")),
    Code(BODY_TOO_LARGE, 413, _("The request body is too large.")),
    Code(UNSUPPORTED_MEDIA_TYPE, 415, _("The media type is not supported; send application/json.")),
    Code("42200", 422, _("This X-Idempotency-Key was used for another request. Send a new key with a new request.")),
    Code(UNEXPECTED, 500, _("Something went wrong on our side. Please try again; if it stays, report the request id.")),
    Code("50001", 500, _("The request could not be routed.")),
    Code("50002", 500, _("The schedule could not be refined.")),
    Code("50003", 503, _("The human verification could not be started.")),
    Code("50004", 503, _("The human verification is not available.")),
    Code(UNAVAILABLE, 503, _("The service is not available at the moment. Please try again shortly.")),
    Code("50301", 503, _("Too many answers are being written at the moment. Please try again shortly.")),
)
CODES: dict[str, Code] = {row.code: row for row in _ROWS}
