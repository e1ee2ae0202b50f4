"""The started server keeps to its own schema, whatever is asked of it: a bounded run of `make fuzz`."""

from tests.fuzz.running import Bound, fuzz
from tests.stack import wait_until

UNDER_WAY = (
    "SELECT chats.id FROM agent_chats chats JOIN users ON users.id = chats.user_id"
    " LEFT JOIN chat_runs runs ON runs.chat_id = chats.chat_id AND runs.is_live = 1"
    " WHERE users.username LIKE ? AND (chats.title_due_at IS NOT NULL OR runs.id IS NOT NULL)"
)


def test_the_api_keeps_to_its_schema(stack, tmp_path):
    figures = fuzz(stack, tmp_path, bound=Bound(examples=2), seed=1, leaving=20)

    assert figures.failures == (), figures.output
    assert figures.errors == (), figures.output
    assert figures.covered == figures.operations >= 45, figures.line
    assert figures.requests >= 3 * figures.operations, figures.line
    # The next journey looks at what the model is asked.
    wait_until(lambda: not stack.rows(UNDER_WAY, "fuzzer-%"), 30, "the end of all runs and titles")
