"""What a student is told about an answer that did not come to its end: error code → sentence to translate."""

from chat.llm import port
from chat.operations import INTERRUPTED, NOT_STARTED, RunNotOwned
from smartflow.accounts.quota import QuotaExceeded
from smartflow.kernel.text import noop as _

INTERNAL = "internal_error"
NOT_SAVED = "answer_not_saved"

_OWN = {
    INTERRUPTED: _("The answer was interrupted by a restart. What you see is kept."),
    NOT_STARTED: _("The answer could not be begun. Your message is kept; please try again."),
    INTERNAL: _("Something went wrong on our side. Your message is kept; please try again."),
    NOT_SAVED: _("The answer could not be saved. Your message is kept; please try again."),
    RunNotOwned.code: RunNotOwned.message,
    QuotaExceeded.code: QuotaExceeded.message,
}
_OF_MODEL = {
    error.code: error.message
    for error in (
        port.ModelBadResponse,
        port.ModelContextTooLong,
        port.ModelCut,
        port.ModelEmptyAnswer,
        port.ModelFilteredAnswer,
        port.ModelRateLimited,
        port.ModelReachedLength,
        port.ModelRefusedCredentials,
        port.ModelRejectedRequest,
        port.ModelServerError,
        port.ModelTimedOut,
        port.ModelUnreachable,
    )
}


def message_of(code: str) -> str:
    """Return the sentence of a run's error code; one that nobody knows any more is told as an internal error."""
    return _OWN.get(code) or _OF_MODEL.get(code) or _OWN[INTERNAL]
