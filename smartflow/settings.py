"""All settings, one file, no environment branches: variables choose parts behind the same interfaces.

Unset variables give one machine's embedded parts: SQLite, the local transport, an offline model. Read through env.py.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any

from smartflow import secrets_file
from smartflow.env import Environment, print_wrong_settings_as_a_sentence, wrong

print_wrong_settings_as_a_sentence()
BASE_DIR = Path(__file__).resolve().parent.parent
ENV = Environment()
VERSION = "0.1.0"

# --- where things are -------------------------------------------------------------------------------------------------
PORT = ENV.integer("PORT", 8000, low=1, high=65535, example="8000")
DATA_DIR = ENV.folder("SMARTFLOW_DATA_DIR", BASE_DIR / "var")
_database = ENV.database("DATABASE_URL", f"sqlite:///{DATA_DIR}/smartflow.sqlite3")
REDIS_URL = ENV.url("REDIS_URL", schemes=("redis", "rediss"), example="redis://127.0.0.1:6379/0")
KAFKA_BOOTSTRAP_SERVERS = ENV.hosts_with_ports("KAFKA_BOOTSTRAP_SERVERS", example="127.0.0.1:9092")
CELERY_BROKER_URL = (
    ENV.url("CELERY_BROKER_URL", schemes=("redis", "rediss", "filesystem"), example="redis://127.0.0.1:6379/1")
    or REDIS_URL
    or "filesystem://"
)
IS_EMBEDDED_DATABASE = _database["ENGINE"].endswith("sqlite3")


# --- secrets ----------------------------------------------------------------------------------------------------------
def _secret(name: str) -> str:
    value = ENV.secret(name, low=secrets_file.MIN_LENGTH, example="$(openssl rand -base64 48)")
    if value:
        return value
    if not IS_EMBEDDED_DATABASE:
        raise wrong(
            name,
            "it is empty, and with a shared database every process needs the same",
            "$(openssl rand -base64 48)",
        )
    return secrets_file.load_or_create(DATA_DIR / "secrets.json")[name]


SECRET_KEY = _secret("SECRET_KEY")
JWT_ACCESS_SECRET = _secret("JWT_ACCESS_SECRET")
JWT_REFRESH_SECRET = _secret("JWT_REFRESH_SECRET")
if JWT_ACCESS_SECRET == JWT_REFRESH_SECRET:
    raise wrong("JWT_REFRESH_SECRET", "it equals JWT_ACCESS_SECRET", "$(openssl rand -base64 48)")
ADMIN_PASSWORD = ENV.secret("SMARTFLOW_ADMIN_PASSWORD", low=8, example="$(openssl rand -base64 12)")

# --- Django -----------------------------------------------------------------------------------------------------------
DEBUG = False
ALLOWED_HOSTS = ENV.hosts("SMARTFLOW_ALLOWED_HOSTS", "127.0.0.1,localhost,[::1]", example="smartflow.example.edu")
CSRF_TRUSTED_ORIGINS = ENV.origins("SMARTFLOW_CSRF_TRUSTED_ORIGINS", example="https://smartflow.example.edu")
ROOT_URLCONF = "smartflow.urls"
ASGI_APPLICATION = "smartflow.asgi.application"
WSGI_APPLICATION = "smartflow.wsgi.application"
AUTH_USER_MODEL = "accounts.User"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
APPEND_SLASH = False
CSRF_FAILURE_VIEW = "smartflow.api.django_errors.csrf_failure"
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "corsheaders",
    "django_htmx",
    "smartflow.api",
    "smartflow.accounts",
    "smartflow.observability",
    "outbox",
    "tasks",
    "schedule",
    "chat",
]
MIDDLEWARE = [
    "smartflow.observability.request_id.RequestIdMiddleware",
    "smartflow.observability.tracing.TraceMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "smartflow.api.throttling.RateLimitHeadersMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "smartflow" / "web" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "smartflow" / "web" / "static"]
STATIC_ROOT = DATA_DIR / "static"
# The server of static files warns about an absent folder, and `collectstatic` is not needed to start.
STATIC_ROOT.mkdir(exist_ok=True)
WHITENOISE_USE_FINDERS = True

LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文")]
LOCALE_PATHS = [BASE_DIR / "smartflow" / "locale"]
USE_I18N = True
USE_TZ = True
TIME_ZONE = "Asia/Shanghai"

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

# --- database ---------------------------------------------------------------------------------------------------------
# Django under ASGI gives each request its own thread, so a kept connection would outlive its thread: none is kept.
_database["CONN_MAX_AGE"] = 0
# A server that hangs, or a network that drops packets, would otherwise hold a request for ever; 0 waits for ever.
DATABASE_READ_TIMEOUT_SECONDS = ENV.integer("DATABASE_READ_TIMEOUT_SECONDS", 60, low=0, high=86_400, example="60")
if IS_EMBEDDED_DATABASE:
    _database["OPTIONS"] = {
        # A transaction that starts as a reader and then writes fails at once when another wrote meanwhile, however
        # long the timeout is; an immediate one waits for its turn.
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
    }
else:
    _database["OPTIONS"] = {
        **_database.get("OPTIONS", {}),
        "charset": "utf8mb4",
        # Compares keys and names byte by byte, as SQLite does; another collation would merge keys `a` and `A`.
        "collation": "utf8mb4_bin",
        # At REPEATABLE READ a claim locks every index entry it looks at, so relays would block each other.
        "isolation_level": "read committed",
        "init_command": "SET sql_mode='STRICT_TRANS_TABLES', time_zone='+00:00'",
        "connect_timeout": 5,
    }
    if DATABASE_READ_TIMEOUT_SECONDS:
        _database["OPTIONS"]["read_timeout"] = DATABASE_READ_TIMEOUT_SECONDS
        _database["OPTIONS"]["write_timeout"] = DATABASE_READ_TIMEOUT_SECONDS
    _database["TEST"] = {"CHARSET": "utf8mb4", "COLLATION": "utf8mb4_bin"}
DATABASES: dict[str, dict[str, Any]] = {"default": _database}

# --- cache: a copy that may vanish at any moment ----------------------------------------------------------------------
CACHES: dict[str, dict[str, Any]] = {
    "default": (
        {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": REDIS_URL,
            "OPTIONS": {
                "IGNORE_EXCEPTIONS": True,
                "SOCKET_CONNECT_TIMEOUT": 0.3,
                "SOCKET_TIMEOUT": 0.5,
            },
            "KEY_PREFIX": "smartflow",
        }
        if REDIS_URL
        else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "smartflow"}
    )
}
DJANGO_REDIS_LOG_IGNORED_EXCEPTIONS = True

# --- Celery -----------------------------------------------------------------------------------------------------------
CELERY_TIMEZONE = "UTC"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
# The timetable is code, so beat needs no file of its own that a kill could damage.
CELERY_BEAT_SCHEDULER = "celery.beat:Scheduler"
CELERY_BEAT_MAX_LOOP_INTERVAL = 1
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = {"polling_interval": 0.05}
if CELERY_BROKER_URL.startswith("filesystem"):
    _broker = DATA_DIR / "broker"
    for _folder in ("queue", "control"):
        (_broker / _folder).mkdir(parents=True, exist_ok=True)
    CELERY_BROKER_TRANSPORT_OPTIONS |= {
        "data_folder_in": str(_broker / "queue"),
        "data_folder_out": str(_broker / "queue"),
        "control_folder": str(_broker / "control"),
    }

# --- outbox -----------------------------------------------------------------------------------------------------------
OUTBOX_TRANSPORT = (
    "outbox.transports.kafka.KafkaTransport" if KAFKA_BOOTSTRAP_SERVERS else ("outbox.transports.local.LocalTransport")
)
# Installations that share a broker need a prefix and a consumer group of their own.
OUTBOX_TOPIC_PREFIX = ENV.kafka_name("OUTBOX_TOPIC_PREFIX", "smartflow")
OUTBOX_TOPICS = {
    **dict.fromkeys(("chat", "agent"), f"{OUTBOX_TOPIC_PREFIX}.agent.outbox"),
    "task": f"{OUTBOX_TOPIC_PREFIX}.task.outbox",
}
OUTBOX_TOPIC_PARTITIONS = ENV.integer("OUTBOX_TOPIC_PARTITIONS", 6, low=1, high=256, example="6")
OUTBOX_TOPIC_REPLICATION = ENV.integer("OUTBOX_TOPIC_REPLICATION", 1, low=1, high=5, example="3")
OUTBOX_CONSUMER_GROUP = ENV.text("OUTBOX_CONSUMER_GROUP", "smartflow-agent-outbox-consumer")
# Relays that work side by side, each on its share of the keys; every Celery worker may host one or more of them.
OUTBOX_RELAYS = ENV.integer("OUTBOX_RELAYS", 1, low=1, high=64, example="2")
OUTBOX_BATCH_SIZE = ENV.integer("OUTBOX_BATCH_SIZE", 500, low=1, high=5000, example="500")
# Larger: a relay that died keeps its rows longer. Smaller than the delivery timeout: rows are published twice.
OUTBOX_LEASE_SECONDS = ENV.integer("OUTBOX_LEASE_SECONDS", 10, low=2, high=600, example="10")
OUTBOX_DELIVERY_TIMEOUT_SECONDS = ENV.integer("OUTBOX_DELIVERY_TIMEOUT_SECONDS", 5, low=1, high=300, example="5")
OUTBOX_RELAY_PASS_SECONDS = ENV.integer("OUTBOX_RELAY_PASS_SECONDS", 10, low=1, high=300, example="10")
OUTBOX_RESCAN_SECONDS = ENV.integer("OUTBOX_RESCAN_SECONDS", 30, low=5, high=86400, example="30")
OUTBOX_RETENTION_SECONDS = ENV.integer("OUTBOX_RETENTION_SECONDS", 7 * 86400, low=3600, high=10**9, example="604800")

# --- the model --------------------------------------------------------------------------------------------------------
OPENAI_BASE_URL = ENV.url("OPENAI_BASE_URL", schemes=("http", "https"), example="https://api.example.com/v1")
OPENAI_API_KEY = ENV.api_key("OPENAI_API_KEY", example="sk-...")
CHAT_MODELS = {
    "worker": ENV.text("SMARTFLOW_MODEL_WORKER", "gpt-4o-mini"),
    "strategist": ENV.text("SMARTFLOW_MODEL_STRATEGIST", "gpt-4o"),
}
CHAT_MODEL_FACTORY = (
    "chat.llm.openai_factory.build_openai_model" if OPENAI_API_KEY else "chat.llm.offline.OfflineChatModel"
)
# How the provider is told to think; empty sends nothing, because a provider refuses a field that it does not know.
CHAT_THINKING_FIELD = ENV.choice("CHAT_THINKING_FIELD", "", ("thinking", "enable_thinking", "reasoning_effort"))
CHAT_MAX_TOKENS_FIELD = ENV.choice("CHAT_MAX_TOKENS_FIELD", "max_tokens", ("max_tokens", "max_completion_tokens"))
# Smaller: long answers end earlier, with the offer to go on. 0 leaves it to the model, and how long it thinks unseen.
CHAT_MAX_ANSWER_TOKENS = ENV.integer("CHAT_MAX_ANSWER_TOKENS", 0, low=0, high=10**7, example="8000")
CHAT_CONNECT_TIMEOUT_SECONDS = ENV.number("CHAT_CONNECT_TIMEOUT_SECONDS", 5, low=0.1, high=60, example="5")
CHAT_SILENCE_TIMEOUT_SECONDS = ENV.number("CHAT_SILENCE_TIMEOUT_SECONDS", 60, low=0.5, high=900, example="60")
CHAT_MODEL_RETRIES = ENV.integer("CHAT_MODEL_RETRIES", 2, low=0, high=10, example="2")
CHAT_MAX_INPUT_TOKENS = ENV.integer("CHAT_MAX_INPUT_TOKENS", 224_000, low=32_000, high=10**7, example="224000")
CHAT_RESERVED_TOKENS = 28_000
CHAT_MAX_LIVE_RUNS = ENV.integer("CHAT_MAX_LIVE_RUNS", 500, low=1, high=100_000, example="500")
CHAT_MAX_LIVE_RUNS_OF_USER = ENV.integer("CHAT_MAX_LIVE_RUNS_OF_USER", 5, low=1, high=10_000, example="5")
# How long an accepted message may wait for an executor before the student is told that nobody took it.
CHAT_QUEUE_SECONDS = ENV.integer("CHAT_QUEUE_SECONDS", 60, low=5, high=3600, example="60")
# Where runs are executed: in the web process that accepts them, or in processes of their own (manage.py run_executor).
CHAT_EXECUTORS = ENV.choice("CHAT_EXECUTORS", "web", ("web", "separate"))
# How long an ending run_executor lets its runs speak on before it ends them as interrupted.
CHAT_DRAIN_SECONDS = ENV.integer("CHAT_DRAIN_SECONDS", 30, low=0, high=3600, example="30")
# What a model is sent at most before the older part of a conversation becomes a summary.
CHAT_CONTEXT_BUDGET_TOKENS = ENV.integer("CHAT_CONTEXT_BUDGET_TOKENS", 80_000, low=2_000, high=10**7, example="80000")
CHAT_CONTEXT_RESERVE_TOKENS = 8_000
CHAT_MAX_MESSAGE_BYTES = 256 * 1024
CHAT_PING_SECONDS = 5.0
# Readers of answers in one web process, and of one user in it.
CHAT_MAX_TAILS = ENV.integer("CHAT_MAX_TAILS", 20_000, low=1, high=1_000_000, example="20000")
CHAT_MAX_TAILS_OF_USER = ENV.integer("CHAT_MAX_TAILS_OF_USER", 20, low=1, high=1_000_000, example="20")
# How long a reader may not take what it is sent before it is cut off; it comes back with the id of its last event.
CHAT_SLOW_READER_SECONDS = ENV.number("CHAT_SLOW_READER_SECONDS", 20, low=0.5, high=900, example="20")
CHAT_RUN_LEASE_SECONDS = ENV.integer("CHAT_RUN_LEASE_SECONDS", 12, low=3, high=600, example="12")

# --- tasks ------------------------------------------------------------------------------------------------------------
# How long before its deadline an open task is told of. Longer tells earlier; what was told is not told again.
TASK_DUE_SOON = timedelta(hours=ENV.integer("TASK_DUE_SOON_HOURS", 24, low=1, high=720, example="24"))

# --- the HTTP edge ----------------------------------------------------------------------------------------------------
ACCESS_TOKEN_LIFETIME = timedelta(minutes=15)
REFRESH_TOKEN_LIFETIME = timedelta(days=7)
# How long a request may take before a repetition of it takes over; larger keeps a dead process's keys busy for longer.
IDEMPOTENCY_LEASE_SECONDS = ENV.integer("IDEMPOTENCY_LEASE_SECONDS", 30, low=1, high=600, example="30")
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["smartflow.accounts.api.authentication.SessionTokenAuthentication"],
    "DEFAULT_THROTTLE_CLASSES": ["smartflow.api.throttling.RateThrottle"],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["smartflow.api.envelope.EnvelopeJSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["smartflow.api.parsers.BoundedJSONParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "smartflow.api.negotiation.ForgivingNegotiation",
    "DEFAULT_SCHEMA_CLASS": "smartflow.api.schema.EnvelopeAutoSchema",
    "EXCEPTION_HANDLER": "smartflow.api.exception_handler.handle",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}
# How many requests at once, and as many again in how many seconds. What signs in is counted by address and by name,
# the rest by user; `address` is for all the users of one address together.
RATE_LIMITS = ENV.switch("RATE_LIMITS", "on")
RATE_LIMIT_GROUPS = {
    "auth": ENV.rate("RATE_LIMIT_AUTH", "10/60"),
    "auth_name": ENV.rate("RATE_LIMIT_AUTH_NAME", "10/60"),
    "refresh": ENV.rate("RATE_LIMIT_REFRESH", "120/60"),
    "read": ENV.rate("RATE_LIMIT_READ", "60/20"),
    "write": ENV.rate("RATE_LIMIT_WRITE", "20/20"),
    "agent": ENV.rate("RATE_LIMIT_AGENT", "20/20"),
    "address": ENV.rate("RATE_LIMIT_ADDRESS", "1200/60"),
}
RATE_LIMIT_WITHOUT_REDIS = ENV.choice("RATE_LIMIT_WITHOUT_REDIS", "allow", ("allow", "refuse"))
# Proxies before this process that add their peer to X-Forwarded-For; more than there are lets clients choose a name.
TRUSTED_PROXIES = ENV.integer("SMARTFLOW_TRUSTED_PROXIES", 0, low=0, high=10, example="1")
# What a JSON body may hold, besides DATA_UPLOAD_MAX_MEMORY_SIZE.
JSON_MAX_DEPTH = 20
JSON_MAX_STRING_CHARACTERS = 256 * 1024
JSON_MAX_LIST_ITEMS = 1_000
JSON_MAX_VALUES = 20_000

# Browsers of other origins; the raw routes go through smartflow/api/raw_edge.py to the same two middlewares.
CORS_URLS_REGEX = r"^/(api/|health)"
CORS_ALLOWED_ORIGINS = ENV.origins("CORS_ALLOWED_ORIGINS", example="https://app.example.edu")
CORS_ALLOW_METHODS = ENV.http_names("CORS_ALLOW_METHODS", "DELETE,GET,OPTIONS,PATCH,POST,PUT", example="GET,POST")
CORS_ALLOW_HEADERS = ENV.http_names(
    "CORS_ALLOW_HEADERS",
    "accept,accept-language,authorization,cache-control,content-type,last-event-id,traceparent,x-idempotency-key,"
    "x-request-id",
    example="authorization,content-type",
)
CORS_EXPOSE_HEADERS = ENV.http_names(
    "CORS_EXPOSE_HEADERS",
    "ratelimit-limit,ratelimit-remaining,ratelimit-reset,retry-after,x-conversation-id,x-idempotency-replayed,"
    "x-next-cursor,x-request-id,x-run-id",
    example="retry-after,x-request-id",
)
CORS_ALLOW_CREDENTIALS = ENV.switch("CORS_ALLOW_CREDENTIALS", "off")

# How people reach this process: without TLS, by TLS, or by TLS up to a proxy that says so in X-Forwarded-Proto.
_https = ENV.choice("SMARTFLOW_HTTPS", "off", ("off", "on", "proxy"))
SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _https != "off"
# Orchestrators and scrapers ask from inside.
SECURE_REDIRECT_EXEMPT = [r"^(api/v1/)?health", r"^metrics$"]
if _https == "proxy":
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_HSTS_SECONDS = ENV.integer("SECURE_HSTS_SECONDS", 0, low=0, high=10**9, example="31536000")
_hsts_scope = ENV.choice("SECURE_HSTS_SCOPE", "host", ("host", "subdomains", "preload"))
SECURE_HSTS_INCLUDE_SUBDOMAINS = _hsts_scope != "host"
SECURE_HSTS_PRELOAD = _hsts_scope == "preload"
SPECTACULAR_SETTINGS = {
    "TITLE": "SmartFlow",
    "DESCRIPTION": "A schedule assistant for university students.",
    "VERSION": VERSION,
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    # PATCH needs what its serializer says it needs.
    "COMPONENT_SPLIT_PATCH": False,
    "ENUM_NAME_OVERRIDES": {"LevelEnum": ["low", "medium", "high"]},
}

# --- seen from outside ------------------------------------------------------------------------------------------------
# Without a token the web process has no /metrics; the port is the first that worker and consumer try, 0 opens none.
METRICS_TOKEN = ENV.secret("SMARTFLOW_METRICS_TOKEN", low=16, example="$(openssl rand -hex 24)")
METRICS_PORT = ENV.integer("SMARTFLOW_METRICS_PORT", 0, low=0, high=65_000, example="9200")
METRICS_HOST = ENV.text("SMARTFLOW_METRICS_HOST", "127.0.0.1")
# The collector that takes traces; empty: nothing is traced.
TRACES_ENDPOINT = ENV.url("OTEL_EXPORTER_OTLP_ENDPOINT", schemes=("http", "https"), example="http://127.0.0.1:4318")
LOG_LEVEL = ENV.choice("SMARTFLOW_LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR"))
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"request_id": {"()": "smartflow.observability.logging.RequestIdFilter"}},
    "formatters": {"line": {"()": "smartflow.observability.logging.LineFormatter"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["request_id"]},
    },
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "django.server": {"handlers": [], "propagate": True},
        "uvicorn": {"handlers": [], "propagate": True},
        "uvicorn.access": {"handlers": [], "propagate": False},
        "celery.app.trace": {"level": "WARNING"},
        "celery.beat": {"level": "WARNING"},
        "kombu.connection": {"level": "ERROR"},  # warns that `filesystem://` names no host
        "httpx": {"level": "WARNING"},
        "httpx2": {"level": "WARNING"},
    },
}

# --- the operators' admin ---------------------------------------------------------------------------------------------
LOGIN_REDIRECT_URL = "admin:index"
FORMAT_MODULE_PATH = "smartflow.web.formats"
UNFOLD = {
    "SITE_TITLE": "SmartFlow",
    "SITE_HEADER": "SmartFlow",
    "SITE_SYMBOL": "hub",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "/static/web/favicon.svg"}],
    "SITE_URL": None,
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "DASHBOARD_CALLBACK": "smartflow.web.dashboard.add_overview",
    "SIDEBAR": {"navigation": "smartflow.web.navigation.sidebar"},
}
