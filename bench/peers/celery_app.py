"""The Celery app of django-celery-outbox: found by name, as its setting demands."""

import os

from django_celery_outbox import OutboxCelery

app = OutboxCelery("peer", broker=os.environ["PEER_REDIS"])
