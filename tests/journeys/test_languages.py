"""Errors are told in the reader's language, before a stream and inside it."""

import pytest


@pytest.mark.parametrize("accept", ["zh-CN,zh;q=0.9,en;q=0.5", "zh-Hans"])
def test_chinese_reader_is_told_in_chinese(stack, alice, accept):
    failed = alice.chat("你好 [[cut after=2]]", Accept_Language=accept)
    refused = alice.chat(" ", Accept_Language=accept)

    failed.assert_failed("model_cut")
    assert not failed.error["message"].isascii()
    assert not refused.body["info"].isascii()


@pytest.mark.parametrize("accept", ["en", "xx, de;q=0.8", "*", ""])
def test_any_other_reader_is_told_in_english(alice, accept):
    failed = alice.chat("Hello [[cut after=2]]", Accept_Language=accept)
    refused = alice.chat(" ", Accept_Language=accept)

    failed.assert_failed("model_cut")
    assert failed.error["message"].isascii()
    assert refused.body["info"].isascii()
