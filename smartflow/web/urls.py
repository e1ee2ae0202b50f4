"""Pages beside the admin's own; included before admin.site.urls, which answers everything else below /admin/."""

from django.urls import path

from smartflow.web.dashboard import overview

urlpatterns = [path("overview/", overview, name="admin_overview")]
