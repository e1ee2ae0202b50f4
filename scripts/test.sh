#!/bin/sh
# Run every test twice: on the embedded defaults, then on real MariaDB, Redis and Kafka.
# Arguments go to pytest; TEST_WORKERS=n says in how many processes. Without the services one SKIPPED line says why;
# SMARTFLOW_REQUIRE_SERVICES=1 makes it fail.
set -u
cd "$(dirname "$0")/.."

python=.venv/bin/python
failed=0
# Tests wait more than they compute. A file stays in one process: what its tests share is started once.
workers="-n ${TEST_WORKERS:-3} --dist loadfile --no-loadscope-reorder"
folder=$(mktemp -d)

finish() {
  code=$?
  trap - EXIT INT TERM
  [ ! -s "$folder/started" ] || "$python" scripts/services.py stop --only "$(cat "$folder/started")"
  rm -rf "$folder"
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

suite() {
  echo "== Tests on $1"
  shift
  "$@" || failed=1
}

skip() {
  echo "SKIPPED: real-service tests ($1)"
  [ "${SMARTFLOW_REQUIRE_SERVICES-}" != 1 ] || failed=1
  exit "$failed"
}

if ! command -v chromium >/dev/null && ! "$python" scripts/services.py install --browser 2>"$folder/errors"; then
  echo "SKIPPED: browser tests ($(tail -n 1 "$folder/errors"))"
  [ "${SMARTFLOW_REQUIRE_SERVICES-}" != 1 ] || failed=1
fi

"$python" scripts/services.py install --promtool 2>"$folder/errors" ||
  echo "SKIPPED: promtool on the alert rules ($(tail -n 1 "$folder/errors"))"

suite "embedded defaults" \
  env -u DATABASE_URL -u REDIS_URL -u KAFKA_BOOTSTRAP_SERVERS -u CELERY_BROKER_URL \
  "$python" -m pytest $workers --ignore=tests/services -m "not services" "$@"

# Another checkout may run its services on the usual ports: this one then takes others.
exports=$("$python" scripts/services.py env --free-ports 2>"$folder/errors") || skip "$(tail -n 1 "$folder/errors")"
eval "$exports"
# A shared database wants secrets from the environment; these protect nothing.
for name in SECRET_KEY JWT_ACCESS_SECRET JWT_REFRESH_SECRET; do
  eval "[ -n \"\${$name-}\" ] || export $name=tests-only-$name-0123456789-0123456789-0123456789-0123456789-0123456789"
done
if ! "$python" scripts/services.py start --started-file "$folder/started" 2>"$folder/errors"; then
  sed '$d' "$folder/errors" >&2
  skip "$(tail -n 1 "$folder/errors")"
fi
# The start may just have installed what the driver is built with.
scripts/setup.sh --dev || exit 1
"$python" -c 'import MySQLdb' 2>/dev/null || skip "the MySQL driver is not in .venv"

# These touch no service; the first run has shown them.
suite "MariaDB, Redis and Kafka" "$python" -m pytest $workers -m "not alone" \
  --ignore=tests/unit --ignore=tests/architecture --ignore-glob="tests/integration/chat/test_llm_*" "$@"
[ $# -gt 0 ] || suite "MariaDB, Redis and Kafka, while one of them stands still" \
  "$python" -m pytest -m alone tests/journeys tests/services
exit "$failed"
