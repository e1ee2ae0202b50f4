"""Every wrong value of every variable stops the start with one sentence: its name, what is wrong, an example."""

import os
import runpy
import subprocess
import sys

import pytest
from django.core.exceptions import ImproperlyConfigured

from smartflow import env, settings
from smartflow.env import Environment
from tests.architecture.project_tree import ROOT

PASSWORD = "hunter2-never-shown"
LONG = "x" * 32
# Names that somebody else gives: nothing here can tell a wrong one.
FREE_TEXT = {
    "OUTBOX_CONSUMER_GROUP",
    "SMARTFLOW_METRICS_HOST",
    "SMARTFLOW_MODEL_WORKER",
    "SMARTFLOW_MODEL_STRATEGIST",
}
WHOLE_NUMBERS = {
    "PORT": (1, 65535),
    "SMARTFLOW_METRICS_PORT": (0, 65_000),
    "OUTBOX_TOPIC_PARTITIONS": (1, 256),
    "OUTBOX_TOPIC_REPLICATION": (1, 5),
    "OUTBOX_RELAYS": (1, 64),
    "OUTBOX_BATCH_SIZE": (1, 5000),
    "OUTBOX_RELAY_PASS_SECONDS": (1, 300),
    "OUTBOX_LEASE_SECONDS": (2, 600),
    "OUTBOX_DELIVERY_TIMEOUT_SECONDS": (1, 300),
    "OUTBOX_RESCAN_SECONDS": (5, 86400),
    "OUTBOX_RETENTION_SECONDS": (3600, 10**9),
    "CHAT_MODEL_RETRIES": (0, 10),
    "CHAT_MAX_INPUT_TOKENS": (32_000, 10**7),
    "CHAT_MAX_ANSWER_TOKENS": (0, 10**7),
    "CHAT_MAX_LIVE_RUNS": (1, 100_000),
    "CHAT_RUN_LEASE_SECONDS": (3, 600),
    "CHAT_MAX_TAILS": (1, 1_000_000),
    "CHAT_MAX_TAILS_OF_USER": (1, 1_000_000),
    "CHAT_MAX_LIVE_RUNS_OF_USER": (1, 10_000),
    "CHAT_QUEUE_SECONDS": (5, 3600),
    "CHAT_DRAIN_SECONDS": (0, 3600),
    "CHAT_CONTEXT_BUDGET_TOKENS": (2_000, 10**7),
    "SMARTFLOW_TRUSTED_PROXIES": (0, 10),
    "IDEMPOTENCY_LEASE_SECONDS": (1, 600),
    "SECURE_HSTS_SECONDS": (0, 10**9),
    "TASK_DUE_SOON_HOURS": (1, 720),
}
DECIMALS = {
    "CHAT_CONNECT_TIMEOUT_SECONDS": (0.1, 60),
    "CHAT_SILENCE_TIMEOUT_SECONDS": (0.5, 900),
    "CHAT_SLOW_READER_SECONDS": (0.5, 900),
}
RATES = [f"RATE_LIMIT_{group}" for group in ("AUTH", "AUTH_NAME", "REFRESH", "READ", "WRITE", "AGENT", "ADDRESS")]
WRONG = [
    *((name, text, "requests/seconds") for name in RATES for text in ("20", "0/60", "20/0", "1.5/60", "20/minute")),
    ("CHAT_EXECUTORS", "both", "none of web, separate"),
    ("RATE_LIMITS", "yes", "none of on, off"),
    ("RATE_LIMIT_WITHOUT_REDIS", "open", "none of allow, refuse"),
    ("SMARTFLOW_HTTPS", "yes", "none of off, on, proxy"),
    ("SECURE_HSTS_SCOPE", "all", "none of host, subdomains, preload"),
    ("CORS_ALLOWED_ORIGINS", "app.example.edu", "scheme://host"),
    ("CORS_ALLOWED_ORIGINS", "*", "scheme://host"),
    ("CORS_ALLOW_METHODS", "GET POST", "not a name of HTTP"),
    ("CORS_ALLOW_HEADERS", "x-own: 1", "not a name of HTTP"),
    ("CORS_EXPOSE_HEADERS", "*", "not a name of HTTP"),
    ("CORS_ALLOW_CREDENTIALS", "true", "none of on, off"),
    *((name, text, "whole number") for name in WHOLE_NUMBERS for text in ("abc", "1.5", "1e3", "0x10", "1 000")),
    *((name, str(low - 1), f"from {low}") for name, (low, _) in WHOLE_NUMBERS.items()),
    *((name, str(high + 1), f"to {high}") for name, (_, high) in WHOLE_NUMBERS.items()),
    *((name, text, "not a number") for name in DECIMALS for text in ("soon", "1,5", "5s")),
    *((name, text, "not between") for name in DECIMALS for text in ("-1", "0", "1000", "inf", "nan")),
    ("SMARTFLOW_DATA_DIR", "/dev/null/data", "cannot be created"),
    ("SMARTFLOW_DATA_DIR", "~nobody-of-this-name/data", "home folder"),
    ("DATABASE_URL", f"postgres://root:{PASSWORD}@db/smartflow", "neither sqlite:// nor mysql://"),
    ("DATABASE_URL", f"root:{PASSWORD}@db/smartflow", "neither sqlite:// nor mysql://"),
    ("DATABASE_URL", f"mysql://root:{PASSWORD}@db:port/smartflow", "not a database URL"),
    ("DATABASE_URL", f"mysql://root:{PASSWORD}@db:3306", "names no database"),
    ("DATABASE_URL", "sqlite://:memory:", "one process only"),
    ("DATABASE_READ_TIMEOUT_SECONDS", "-1", "not a whole number from 0 to 86400"),
    ("DATABASE_URL", "sqlite:////no/such/folder/smartflow.sqlite3", "does not exist"),
    *(
        (name, value, "")
        for name in ("REDIS_URL", "CELERY_BROKER_URL")
        for value in (
            f"http://:{PASSWORD}@redis:6379/0",
            f"{PASSWORD}@redis:6379",
            "redis://",
            f"redis://:{PASSWORD}@redis:port/0",
            f"redis://:{PASSWORD}@redis:6379/cache",
            f"redis://:{PASSWORD}@redis:99999/0",
        )
    ),
    ("CELERY_BROKER_URL", f"amqp://guest:{PASSWORD}@rabbit:5672//", "redis://"),
    ("KAFKA_BOOTSTRAP_SERVERS", "kafka", "entry 1 of 1 is not host:port"),
    ("KAFKA_BOOTSTRAP_SERVERS", "a:9092,b:port", "entry 2 of 2"),
    ("KAFKA_BOOTSTRAP_SERVERS", "kafka:70000", "not host:port"),
    ("KAFKA_BOOTSTRAP_SERVERS", "kafka:0", "not host:port"),
    ("KAFKA_BOOTSTRAP_SERVERS", f"kafka://me:{PASSWORD}@kafka:9092", "not host:port"),
    *((name, "hunter2", "fewer than 32") for name in ("SECRET_KEY", "JWT_ACCESS_SECRET", "JWT_REFRESH_SECRET")),
    ("SMARTFLOW_ADMIN_PASSWORD", "hunter2", "fewer than 8"),
    ("SMARTFLOW_ALLOWED_HOSTS", "https://smartflow.example", "without scheme"),
    ("SMARTFLOW_ALLOWED_HOSTS", "localhost,smartflow.example:443", "without scheme and port"),
    ("SMARTFLOW_CSRF_TRUSTED_ORIGINS", "smartflow.example", "scheme://host"),
    ("SMARTFLOW_CSRF_TRUSTED_ORIGINS", "https://smartflow.example/admin", "without a path"),
    ("OPENAI_BASE_URL", "api.example.com/v1", "https://"),
    ("OPENAI_BASE_URL", "ftp://api.example.com", "https://"),
    ("OPENAI_API_KEY", f"sk {PASSWORD}", "blanks"),
    ("OPENAI_API_KEY", f"sk-{PASSWORD}é", "outside ASCII"),
    ("SMARTFLOW_METRICS_TOKEN", "hunter2", "fewer than 16"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "https://"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://collector", "https://"),
    ("SMARTFLOW_LOG_LEVEL", "loud", "none of DEBUG, INFO, WARNING, ERROR"),
    ("CHAT_THINKING_FIELD", "think", "none of thinking, "),
    ("CHAT_MAX_TOKENS_FIELD", "tokens", "none of max_tokens, "),
    ("OUTBOX_TOPIC_PREFIX", "smart flow", "letters, digits, dots"),
    ("OUTBOX_TOPIC_PREFIX", "x" * 201, "letters, digits, dots"),
]


@pytest.fixture
def load(monkeypatch, tmp_path):
    """Return a function that evaluates settings.py under the given variables only, and gives back its names."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    for name in settings.ENV.names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SMARTFLOW_DATA_DIR", str(tmp_path))

    def evaluate(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return runpy.run_path(str(ROOT / "smartflow" / "settings.py"))

    return evaluate


@pytest.mark.parametrize(("name", "value", "what"), WRONG)
def test_settings_refuse_a_wrong_value_in_one_sentence(load, name, value, what):
    with pytest.raises(ImproperlyConfigured) as caught:
        load(**{name: value})
    sentence = str(caught.value)
    assert sentence.startswith(f"{name} is wrong: ")
    assert f". Example: {name}=" in sentence
    assert what in sentence
    assert "hunter2" not in sentence
    assert "\n" not in sentence


def test_every_variable_has_a_wrong_value_here_or_is_free_text():
    assert {name for name, _, _ in WRONG} | FREE_TEXT == settings.ENV.names


@pytest.mark.parametrize(("name", "value", "what"), WRONG)
def test_the_example_of_a_wrong_value_is_right(load, monkeypatch, tmp_path, name, value, what):
    with pytest.raises(ImproperlyConfigured) as caught:
        load(**{name: value})
    example = str(caught.value).rpartition(f". Example: {name}=")[2]
    if "$(openssl" in example:  # a command whose output is the value
        example = LONG
    if name in {"SMARTFLOW_DATA_DIR", "DATABASE_URL"}:
        example = example.replace("/srv/smartflow/", f"{tmp_path}/")
    # A shared database needs the secrets: given, so that only the example is judged.
    secrets = {key: f"{key}-{LONG}" for key in ("SECRET_KEY", "JWT_ACCESS_SECRET", "JWT_REFRESH_SECRET")}
    assert load(**{**secrets, name: example})["ENV"].names == settings.ENV.names


@pytest.mark.parametrize("name", ["SECRET_KEY", "JWT_ACCESS_SECRET", "JWT_REFRESH_SECRET"])
def test_settings_demand_secrets_when_the_database_is_shared(load, name):
    secrets = {key: f"{key}-{LONG}" for key in ("SECRET_KEY", "JWT_ACCESS_SECRET", "JWT_REFRESH_SECRET")}
    with pytest.raises(ImproperlyConfigured, match=f"{name} is wrong: it is empty, and with a shared database"):
        load(**{**secrets, name: "", "DATABASE_URL": "mysql://u:p@127.0.0.1:3306/smartflow"})


def test_settings_refuse_one_secret_for_both_tokens(load):
    with pytest.raises(ImproperlyConfigured, match="JWT_REFRESH_SECRET is wrong: it equals") as caught:
        load(JWT_ACCESS_SECRET=PASSWORD * 2, JWT_REFRESH_SECRET=PASSWORD * 2)
    assert PASSWORD not in str(caught.value)


def test_settings_refuse_a_damaged_file_of_secrets(load, tmp_path):
    (tmp_path / "secrets.json").write_text('{"SECRET_KEY": "hunter2')
    with pytest.raises(ImproperlyConfigured, match=r"secrets\.json is damaged") as caught:
        load()
    assert "hunter2" not in str(caught.value)


def test_settings_start_with_no_variable_at_all(load, tmp_path):
    loaded = load()
    assert loaded["PORT"] == 8000
    assert loaded["IS_EMBEDDED_DATABASE"]
    assert loaded["CACHES"]["default"]["BACKEND"].endswith("LocMemCache")
    assert loaded["CELERY_BROKER_URL"] == "filesystem://"
    assert loaded["OUTBOX_TRANSPORT"] == "outbox.transports.local.LocalTransport"


def test_settings_keep_their_secrets_between_starts(load):
    assert load()["SECRET_KEY"] == load()["SECRET_KEY"]


def test_three_variables_move_the_same_code_to_a_cluster(load):
    secrets = {key: f"{key}-{LONG}" for key in ("SECRET_KEY", "JWT_ACCESS_SECRET", "JWT_REFRESH_SECRET")}
    loaded = load(
        **secrets,
        DATABASE_URL="mysql://u:p@127.0.0.1:3306/smartflow",
        REDIS_URL="redis://127.0.0.1:6379/0",
        KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:9092",
    )
    assert loaded["DATABASES"]["default"]["ENGINE"].endswith("mysql")
    assert loaded["CACHES"]["default"]["BACKEND"] == "django_redis.cache.RedisCache"
    assert loaded["CELERY_BROKER_URL"] == "redis://127.0.0.1:6379/0"
    assert loaded["OUTBOX_TRANSPORT"] == "outbox.transports.kafka.KafkaTransport"


def test_blanks_around_a_value_do_not_count_and_an_empty_one_means_unset():
    environment = Environment({"PORT": " 9000 ", "EMPTY": "  "})
    assert environment.integer("PORT", 8000, low=1, high=65535, example="8000") == 9000
    assert environment.integer("EMPTY", 7, low=1, high=9, example="8") == 7
    assert environment.text("ABSENT", "default") == "default"
    assert environment.names == {"PORT", "EMPTY", "ABSENT"}


def test_names_list_drops_blanks_and_repeats():
    assert Environment({"NAMES": "b, a,,b , "}).names_list("NAMES", "") == ["b", "a"]


@pytest.mark.parametrize("value", ["*", ".example.com", "example.com", "10.0.0.1", "[::1]", "a.example,b.example"])
def test_hosts_accept_what_django_accepts(value):
    assert Environment({"HOSTS": value}).hosts("HOSTS", "", example="x") == value.split(",")


@pytest.mark.parametrize("value", ["https://a.example", "http://[::1]:8000", "https://*.a.example:8443"])
def test_origins_accept_what_django_accepts(value):
    assert Environment({"ORIGINS": value}).origins("ORIGINS", example="x") == [value]


def test_kafka_servers_may_have_ipv6_addresses():
    servers = Environment({"SERVERS": "[::1]:9092,kafka:9093"}).hosts_with_ports("SERVERS", example="x")
    assert servers == ["[::1]:9092", "kafka:9093"]


def test_another_error_still_shows_where_it_came_from(monkeypatch, capsys):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    env.print_wrong_settings_as_a_sentence()
    try:
        raise ZeroDivisionError("a mistake in the code")
    except ZeroDivisionError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    assert "Traceback" in capsys.readouterr().err


ENTRY_POINTS = [
    [sys.executable, "manage.py", "check"],
    [sys.executable, "manage.py", "consume_events"],
    [sys.executable, "-m", "uvicorn", "smartflow.asgi:application", "--port", "1"],
    [sys.executable, "-m", "celery", "-A", "smartflow", "worker"],
    [sys.executable, "-m", "celery", "-A", "smartflow", "beat"],
]


@pytest.mark.parametrize("command", ENTRY_POINTS, ids=lambda command: " ".join(command[1:4]))
@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("PORT", "eighty", "error: PORT is wrong: 'eighty' is not a whole number from 1 to 65535. Example: PORT=8000"),
        (
            "REDIS_URL",
            f"{PASSWORD}@redis",
            "error: REDIS_URL is wrong: it must start with redis:// or rediss:// and name a host."
            " Example: REDIS_URL=redis://127.0.0.1:6379/0",
        ),
    ],
)
def test_every_process_says_one_sentence_and_ends(tmp_path, command, name, value, sentence):
    inherited = {key: kept for key, kept in os.environ.items() if key not in settings.ENV.names}
    variables = {**inherited, "SMARTFLOW_DATA_DIR": str(tmp_path), name: value}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == f"{sentence}\n"


def test_a_lease_shorter_than_a_publish_stops_the_start(tmp_path):
    inherited = {key: kept for key, kept in os.environ.items() if key not in settings.ENV.names}
    variables = {**inherited, "SMARTFLOW_DATA_DIR": str(tmp_path), "OUTBOX_LEASE_SECONDS": "2"}
    command = [sys.executable, "manage.py", "check"]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "OUTBOX_LEASE_SECONDS is not longer than OUTBOX_DELIVERY_TIMEOUT_SECONDS" in done.stderr
    assert "Traceback" not in done.stderr
