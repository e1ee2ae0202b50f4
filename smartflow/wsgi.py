"""WSGI entry point: everything but the streams, which need ASGI (asgi.py)."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "smartflow.settings")

application = get_wsgi_application()
