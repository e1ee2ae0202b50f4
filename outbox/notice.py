"""Tells in the log that a part went away, and that it came back: one line per change of state, however often asked."""

import logging


class Notice:
    """What is said of one part; `level` is that of the first line."""

    def __init__(self, *, logger: logging.Logger, away: str, back: str, level: int = logging.INFO) -> None:
        self._logger, self._level = logger, level
        self._away, self._back = away, back
        self._is_away = False

    def tell(self, *, is_away: bool) -> None:
        """Say how it is now, unless that was the last thing said."""
        if is_away == self._is_away:
            return
        self._is_away = is_away
        if is_away:
            self._logger.log(self._level, self._away)
        else:
            self._logger.info(self._back)
