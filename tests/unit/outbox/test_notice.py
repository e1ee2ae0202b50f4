"""outbox/notice.py: one line in the log per change of state."""

import logging

import pytest

from outbox.notice import Notice


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_notice_tells_each_change_once_and_nothing_at_first(level, caplog):
    logger = logging.getLogger("outbox.tests")
    notice = Notice(logger=logger, away="gone", back="there", level=level)
    with caplog.at_level(logging.INFO, logger=logger.name):
        for is_away in (False, True, True, False, False, True):
            notice.tell(is_away=is_away)
    said = [(record.levelno, record.getMessage()) for record in caplog.records]
    assert said == [(level, "gone"), (logging.INFO, "there"), (level, "gone")]
