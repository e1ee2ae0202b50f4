"""Every write of conversations, runs and the long-term memory.

Whoever writes entries or events of a conversation locks its row first and holds it to the commit: that makes the order
of ids the order of commits, which is what the timeline and the outbox keep.
"""

from chat.memory_queries import MemoryNotFound
from chat.operations.conversations import ConversationTitleInvalid, change_conversation, delete_conversation
from chat.operations.endings import (
    INTERRUPTED,
    NOT_STARTED,
    RecoveredText,
    end_orphaned_run,
    finish_run,
    list_orphaned_runs,
    release_run,
    request_stop,
)
from chat.operations.memory_items import (
    MemoryChangeEmpty,
    MemoryDeleted,
    change_memory_item,
    create_memory_item,
    delete_memory_item,
    restore_memory_item,
)
from chat.operations.memory_settings import change_memory_switches
from chat.operations.ownership import (
    RunNotOwned,
    WaitingRun,
    claim_run,
    list_claimable_runs,
    list_stop_requests,
)
from chat.operations.progress import renew_leases, save_progress
from chat.operations.records import record_messages, record_snapshots, record_token_adjustments
from chat.operations.timeline import append_timeline, save_compaction
from chat.operations.titles import claim_titles, save_title
from chat.operations.turns import (
    Claimant,
    RunNotContinuable,
    TooManyRunsOfUser,
    begin_continuation,
    begin_turn,
    begin_variant,
)
from chat.operations.variants import AnswerEmpty, RunAlreadyLive, RunNotRepeatable, select_variant
from chat.queries import ConversationNotFound, RunNotFound

__all__ = [
    "INTERRUPTED",
    "NOT_STARTED",
    "AnswerEmpty",
    "Claimant",
    "ConversationNotFound",
    "ConversationTitleInvalid",
    "MemoryChangeEmpty",
    "MemoryDeleted",
    "MemoryNotFound",
    "RecoveredText",
    "RunAlreadyLive",
    "RunNotContinuable",
    "RunNotFound",
    "RunNotOwned",
    "RunNotRepeatable",
    "TooManyRunsOfUser",
    "WaitingRun",
    "append_timeline",
    "begin_continuation",
    "begin_turn",
    "begin_variant",
    "change_conversation",
    "change_memory_item",
    "change_memory_switches",
    "claim_run",
    "claim_titles",
    "create_memory_item",
    "delete_conversation",
    "delete_memory_item",
    "end_orphaned_run",
    "finish_run",
    "list_claimable_runs",
    "list_orphaned_runs",
    "list_stop_requests",
    "record_messages",
    "record_snapshots",
    "record_token_adjustments",
    "release_run",
    "renew_leases",
    "request_stop",
    "restore_memory_item",
    "save_compaction",
    "save_progress",
    "save_title",
    "select_variant",
]
