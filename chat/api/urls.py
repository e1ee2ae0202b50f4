"""Routes of the chat app, below /api/v1/."""

from django.urls import path

from chat.api import views

urlpatterns = [
    path("agent/chat", views.ChatView.as_view(), name="chat"),
    path("agent/conversation-meta", views.ConversationMetaView.as_view(), name="conversation-meta"),
    path("agent/conversation-list", views.ConversationListView.as_view(), name="conversation-list"),
    path("agent/conversation-timeline", views.ConversationTimelineView.as_view(), name="conversation-timeline"),
    path("agent/context-stats", views.ContextStatsView.as_view(), name="context-stats"),
    path("agent/runs/<uuid:run_id>/variants", views.VariantsView.as_view(), name="run-variants"),
    path("agent/runs/<uuid:run_id>/select", views.SelectVariantView.as_view(), name="run-select"),
    path("agent/conversations/<uuid:conversation_id>", views.ConversationView.as_view(), name="conversation"),
]
