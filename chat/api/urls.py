"""Routes of the chat app, below /api/v1/."""

from django.urls import path

from chat.api import views

urlpatterns = [
    path("agent/chat", views.ChatView.as_view(), name="chat"),
    path("agent/conversation-meta", views.ConversationMetaView.as_view(), name="conversation-meta"),
    path("agent/conversation-list", views.ConversationListView.as_view(), name="conversation-list"),
    path("agent/conversation-timeline", views.ConversationTimelineView.as_view(), name="conversation-timeline"),
    path("agent/conversations/<uuid:conversation_id>", views.ConversationView.as_view(), name="conversation"),
]
