"""Django's knobs. What a user may set comes from the environment, through `anumate.lib.env`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from django.templatetags.static import static
from django.urls import reverse_lazy

from anumate.lib import env as environment
from anumate.lib.database import database
from anumate.lib.state import keep_secret, store_url

try:
    ENV = environment.read()
except environment.EnvError as error:
    sys.exit(f"anumate: {error}")

BASE_DIR = Path(__file__).resolve().parent.parent
HOME = ENV.home.resolve()
DEBUG = ENV.debug
SECRET_KEY = ENV.secret_key or keep_secret(HOME, "secret-key")
API_KEY_PEPPER = ENV.api_key_pepper or keep_secret(HOME, "api-key-pepper")
ALLOWED_HOSTS = list(ENV.allowed_hosts)
CSRF_TRUSTED_ORIGINS = list(ENV.csrf_trusted_origins)

REDIS_URL = ENV.redis_url or store_url(HOME)

INSTALLED_APPS = [
    "anumate",
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "registry",
    "health",
    "gateway",
]

MIDDLEWARE = [
    "registry.requests.RequestIdMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "anumate.urls"
ASGI_APPLICATION = "anumate.asgi.application"
APPEND_SLASH = False

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        # Beside the packages in a checkout, inside `anumate` in a wheel.
        "DIRS": [BASE_DIR / "templates", BASE_DIR / "anumate" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]


DATABASES = {"default": database(ENV.database_url, HOME)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": ENV.cache_url or REDIS_URL,
        "KEY_PREFIX": "anumate:cache",
        "OPTIONS": {"SOCKET_CONNECT_TIMEOUT": 2, "SOCKET_TIMEOUT": 5},
    }
}
# Sessions are rows: a wiped cache logs nobody out.
SESSION_ENGINE = "django.contrib.sessions.backends.db"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = ENV.https_only
SECURE_HSTS_SECONDS = 31_536_000 if ENV.https_only else 0
# Whether HSTS reaches subdomains or a preload list is for the owner of the domain to say, not for one of its services.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
SESSION_COOKIE_HTTPONLY = True
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CSRF_FAILURE_VIEW = "registry.errors.csrf_failure"

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        # socket_timeout None: redis-py's new default of 5 s would end the blocking read of the layer.
        "CONFIG": {
            "hosts": [{"address": ENV.channels_redis_url or REDIS_URL, "socket_timeout": None}],
            "prefix": "anumate:layer",
        },
    }
}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
]
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"

LANGUAGE_CODE = "en"
USE_I18N = False
TIME_ZONE = "UTC"
USE_TZ = True
# An operator reads seconds, and no half of the day.
DATETIME_FORMAT = "j M Y, H:i:s"
DATE_FORMAT = "j M Y"
TIME_FORMAT = "H:i:s"

STATIC_URL = "/static/"
STATIC_ROOT = HOME / "static"
STATICFILES_DIRS = [path for path in (BASE_DIR / "anumate" / "static",) if path.is_dir()]
# Straight from the packages, so that a fresh clone needs no collectstatic.
SERVESTATIC_USE_FINDERS = True
SERVESTATIC_AUTOREFRESH = False

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "registry.auth.ApiKeyAuthentication",
        "registry.auth.StaffSessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["registry.auth.HasScope"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["registry.parsers.JsonParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "registry.parsers.JsonUnlessAsked",
    "URL_FORMAT_OVERRIDE": None,
    "DEFAULT_PAGINATION_CLASS": "registry.pagination.Pages",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "registry.errors.problem_response",
    "UNAUTHENTICATED_USER": None,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 1024 * 1024

SPECTACULAR_SETTINGS = {
    "TITLE": "Anumate Integration Service",
    "DESCRIPTION": "Service registry, health, circuit breakers and the gateway's configuration.",
    "VERSION": "0.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": "/v1",
    "ENUM_NAME_OVERRIDES": {
        "HealthEnum": "registry.models.Instance.Health",
        "OperatorStateEnum": "registry.models.OperatorState.State",
        "BreakerStateEnum": "gateway.report_serializers.BREAKER_STATES",
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "registry.openapi.add_lane",
        "registry.schema.add_problems",
    ],
}

CELERY_BROKER_URL = ENV.celery_broker_url or REDIS_URL

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Anumate",
    "SITE_HEADER": "Anumate",
    "SITE_SUBHEADER": "Integration Service",
    "SITE_ICON": lambda request: static("anumate/mark.svg"),
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("anumate/mark.svg")},
    ],
    # Not on the login page: the way back would only lead to it again.
    "SITE_URL": lambda request: str(reverse_lazy("live")) if request.user.is_authenticated else None,
    "STYLES": [lambda request: static("anumate/admin.css")],
    "LOGIN": {"image": lambda request: static("anumate/login.svg")},
    "DASHBOARD_CALLBACK": "anumate.faces.home.dashboard",
    "SHOW_VIEW_ON_SITE": False,
    "BORDER_RADIUS": "8px",
    "COMMAND": {"search_models": True},
    "SIDEBAR": {"show_search": True, "command_search": True, "navigation": "anumate.faces.navigation.sidebar"},
    # The live page's colours: petrol for what can be done, greys with a trace of it.
    "COLORS": {
        "base": {
            "50": "oklch(97.6% .004 165)",
            "100": "oklch(95.6% .006 165)",
            "200": "oklch(91.2% .009 165)",
            "300": "oklch(85.6% .013 165)",
            "400": "oklch(70.2% .018 165)",
            "500": "oklch(52.4% .02 165)",
            "600": "oklch(43.4% .021 165)",
            "700": "oklch(35.6% .02 165)",
            "800": "oklch(27.2% .018 168)",
            "900": "oklch(20.6% .015 170)",
            "950": "oklch(16.4% .012 170)",
        },
        "primary": {
            "50": "oklch(97.4% .018 180)",
            "100": "oklch(94.2% .04 180)",
            "200": "oklch(88.8% .07 180)",
            "300": "oklch(82.4% .098 180)",
            "400": "oklch(74.2% .108 180)",
            "500": "oklch(61.4% .1 181)",
            "600": "oklch(48.6% .084 182)",
            "700": "oklch(43% .074 183)",
            "800": "oklch(37.4% .062 184)",
            "900": "oklch(31.6% .05 185)",
            "950": "oklch(24.2% .038 186)",
        },
    },
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(levelname)-7s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": ENV.log_level.upper()},
    "loggers": {
        "django.server": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},
        "httpcore": {"level": "WARNING"},
    },
}
