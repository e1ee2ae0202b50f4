"""Pages beside the admin's own; included before admin.site.urls, which answers everything else below /admin/."""

from django.urls import path

from smartflow.web.dashboard import overview
from smartflow.web.sign_in import sign_in

urlpatterns = [path("login/", sign_in), path("overview/", overview, name="admin_overview")]
