"""Routes of the tasks app, below /api/v1/."""

from django.urls import path

from tasks.api import class_views, views

urlpatterns = [
    path("task/create", views.TaskCreateView.as_view(), name="task-create"),
    path("task/get", views.TaskListView.as_view(), name="task-list"),
    path("task/batch-status", views.TaskBatchStatusView.as_view(), name="task-batch-status"),
    path("task/update", views.TaskUpdateView.as_view(), name="task-update"),
    path("task/complete", views.TaskCompleteView.as_view(), name="task-complete"),
    path("task/undo-complete", views.TaskUndoCompleteView.as_view(), name="task-undo-complete"),
    path("task/delete", views.TaskDeleteView.as_view(), name="task-delete"),
    path("task/restore", views.TaskRestoreView.as_view(), name="task-restore"),
    path("task-class/add", class_views.ClassAddView.as_view(), name="task-class-add"),
    path("task-class/list", class_views.ClassListView.as_view(), name="task-class-list"),
    path("task-class/get", class_views.ClassView.as_view(), name="task-class"),
    path("task-class/update", class_views.ClassUpdateView.as_view(), name="task-class-update"),
    path("task-class/delete-item", class_views.ItemDeleteView.as_view(), name="task-class-delete-item"),
    path("task-class/delete-class", class_views.ClassDeleteView.as_view(), name="task-class-delete"),
]
