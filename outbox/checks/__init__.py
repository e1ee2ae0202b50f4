"""System checks: the fact as message, the remedy as hint, and an id: outbox.E… stops the start, outbox.W… warns.

wiring.py needs nothing but settings and code and runs at every start. database.py asks the database (`migrate`,
`check --database default`), broker.py the broker (`check --deploy`); a part that is away fails no check.
"""

from outbox.checks import broker, database, wiring

__all__ = ["broker", "database", "wiring"]
