"""The admin's sidebar: what operators look at most stands first. Entries they may not open are left out."""

from typing import Any

from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

# title, URL name, icon, the permission that opens it
_GROUPS: list[tuple[Any, list[tuple[Any, str, str, str]]]] = [
    ("", [(_("Overview"), "admin:index", "monitoring", "")]),
    (
        _("Outbox"),
        [
            (_("Rows"), "admin:outbox_outboxmessage_changelist", "outbox", "outbox.view_outboxmessage"),
            (_("Dead letters"), "admin:outbox_deadletter_changelist", "report", "outbox.view_outboxmessage"),
            (_("Blocked keys"), "admin:outbox_keyhold_changelist", "block", "outbox.view_outboxmessage"),
            (_("Event types"), "admin:outbox_event_types", "toggle_on", "outbox.view_outboxmessage"),
            (_("Operator actions"), "admin:outbox_operatoraction_changelist", "gavel", "outbox.view_operatoraction"),
        ],
    ),
    (
        _("Chat"),
        [
            (_("Conversations"), "admin:chat_agentchat_changelist", "forum", "chat.view_agentchat"),
            (_("Runs"), "admin:chat_chatrun_changelist", "play_circle", "chat.view_chatrun"),
            (_("Messages"), "admin:chat_chathistory_changelist", "chat", "chat.view_chathistory"),
            (_("Timeline"), "admin:chat_agenttimelineevent_changelist", "timeline", "chat.view_agenttimelineevent"),
            (_("States"), "admin:chat_agentstatesnapshot_changelist", "save", "chat.view_agentstatesnapshot"),
            (_("Memory"), "admin:chat_memoryitem_changelist", "psychology", "chat.view_memoryitem"),
            (_("Changes of the memory"), "admin:chat_memoryauditlog_changelist", "rule", "chat.view_memoryauditlog"),
            (_("Memory settings"), "admin:chat_memorysettings_changelist", "toggle_off", "chat.view_memorysettings"),
        ],
    ),
    (
        _("Tasks"),
        [
            (_("Tasks"), "admin:tasks_task_changelist", "checklist", "tasks.view_task"),
            (_("Task classes"), "admin:tasks_taskclass_changelist", "school", "tasks.view_taskclass"),
        ],
    ),
    (
        _("Accounts"),
        [
            (_("Users"), "admin:accounts_user_changelist", "person", "accounts.view_user"),
            (
                _("Token ledger"),
                "admin:accounts_tokenledgerentry_changelist",
                "receipt_long",
                "accounts.view_tokenledgerentry",
            ),
            (_("Sessions"), "admin:accounts_tokensession_changelist", "devices", "accounts.view_tokensession"),
            (_("Groups"), "admin:auth_group_changelist", "group", "auth.view_group"),
            (
                _("Repeated writes"),
                "admin:edge_idempotencyrecord_changelist",
                "repeat",
                "edge.view_idempotencyrecord",
            ),
            (_("Operators' log"), "admin:admin_logentry_changelist", "history", "admin.view_logentry"),
        ],
    ),
]


def sidebar(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the groups of the sidebar in unfold's form."""
    groups = []
    for title, entries in _GROUPS:
        items = [
            {"title": name, "icon": icon, "link": reverse(url)}
            for name, url, icon, permission in entries
            if not permission or request.user.has_perm(permission)
        ]
        if items:
            groups.append({"title": title, "separator": bool(title), "items": items})
    return groups
