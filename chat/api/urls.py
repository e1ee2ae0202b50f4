"""Routes of the chat app, below /api/v1/."""

from django.urls import path

from chat.api import memory_views, stream_views, views

urlpatterns = [
    path("agent/chat", stream_views.ChatView.as_view(), name="chat"),
    path("agent/runs/<uuid:run_id>/events", stream_views.RunEventsView.as_view(), name="run-events"),
    path("agent/runs/<uuid:run_id>/stop", stream_views.StopRunView.as_view(), name="run-stop"),
    path("agent/runs/<uuid:run_id>/regenerate", stream_views.RegenerateView.as_view(), name="run-regenerate"),
    path("agent/runs/<uuid:run_id>/continue", stream_views.ContinueView.as_view(), name="run-continue"),
    path("agent/conversation-meta", views.ConversationMetaView.as_view(), name="conversation-meta"),
    path("agent/conversation-list", views.ConversationListView.as_view(), name="conversation-list"),
    path("agent/conversation-timeline", views.ConversationTimelineView.as_view(), name="conversation-timeline"),
    path("agent/context-stats", views.ContextStatsView.as_view(), name="context-stats"),
    path("agent/runs/<uuid:run_id>/variants", views.VariantsView.as_view(), name="run-variants"),
    path("agent/runs/<uuid:run_id>/select", views.SelectVariantView.as_view(), name="run-select"),
    path("agent/conversations/<uuid:conversation_id>", views.ConversationView.as_view(), name="conversation"),
    path("memory/items", memory_views.MemoryItemsView.as_view(), name="memory-items"),
    path("memory/items/<str:item_id>", memory_views.MemoryItemView.as_view(), name="memory-item"),
    path("memory/items/<str:item_id>/restore", memory_views.MemoryRestoreView.as_view(), name="memory-restore"),
    path("memory/settings", memory_views.MemorySettingsView.as_view(), name="memory-settings"),
]
