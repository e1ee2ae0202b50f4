"""Why a command cannot be carried out, with the exit code it ends in."""


class ServiceError(Exception):
    """Something could be tried and failed; the message is the last line printed."""

    exit_code = 1


class CannotBeHad(ServiceError):
    """This machine lacks something that this script may not or cannot install."""

    exit_code = 3
