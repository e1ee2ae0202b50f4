# One image for web, worker, beat, consumer and the one-shot migration; docker-compose.yml says which command it runs.
# The driver is compiled in the first stage: the second has neither compiler nor headers.
FROM python:3.11-slim-bookworm AS builder
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev pkg-config default-libmysqlclient-dev \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
COPY requirements.txt /tmp/requirements.txt
RUN pip install --no-cache-dir --require-hashes -r /tmp/requirements.txt

FROM python:3.11-slim-bookworm
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libmariadb3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 smartflow \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/smartflow smartflow \
    && install --directory --owner=10001 --group=10001 /var/lib/smartflow
COPY --from=builder /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    SMARTFLOW_DATA_DIR=/var/lib/smartflow PORT=8000
WORKDIR /app
COPY LICENSE manage.py ./
COPY smartflow ./smartflow
COPY chat ./chat
COPY schedule ./schedule
COPY tasks ./tasks
COPY outbox ./outbox
# By number: an orchestrator that refuses root can only tell from a number.
USER 10001:10001
EXPOSE 8000
CMD ["sh", "-c", "exec uvicorn smartflow.asgi:application --host 0.0.0.0 --port \"$PORT\" --timeout-graceful-shutdown 10"]
