"""The one settings file of the control plane. Values come from the environment; see ``config.env``."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from config.env import env_bool, env_database, env_int, env_list, env_text

BASE_DIR = Path(__file__).resolve().parent.parent.parent

SECRET_KEY = env_text("TOKENWORKS_SECRET_KEY")
DISPATCH_SECRET = env_text("TOKENWORKS_DISPATCH_SECRET")
STATE_DIR = Path(env_text("TOKENWORKS_STATE_DIR", "var"))
CONTROL_URL = env_text("TOKENWORKS_CONTROL_URL", "http://127.0.0.1:8000")
GATEWAY_URL = env_text("TOKENWORKS_GATEWAY_URL", "http://127.0.0.1:8080")
REDIS_URL = env_text("REDIS_URL")
DEBUG = False

_SERVED_BY_HTTPS = CONTROL_URL.startswith("https://")
ALLOWED_HOSTS = env_list(
    "TOKENWORKS_ALLOWED_HOSTS",
    [urlsplit(CONTROL_URL).hostname or "localhost", "localhost", "127.0.0.1", "[::1]"],
)
CSRF_TRUSTED_ORIGINS = env_list("TOKENWORKS_TRUSTED_ORIGINS", [CONTROL_URL])

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_htmx",
    "ninja",
    "tenants",
    "ledger",
    "governance",
    "partners",
    "releases",
    "metering",
    "api",
    "console",
]

MIDDLEWARE = [
    "api.middleware.RequestContextMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"

_POOL = env_int("TOKENWORKS_DB_POOL", 0)
DATABASES = {
    "default": env_database("DATABASE_APP_URL", pool_size=_POOL),
    "system": env_database("DATABASE_SYSTEM_URL", pool_size=_POOL),
}
if env_text("DATABASE_URL", ""):  # the owner's: only what migrates has it
    DATABASES["owner"] = env_database("DATABASE_URL")
DATABASE_ROUTERS = ["tenants.scope.ScopeRouter"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "tenants.User"
AUTHENTICATION_BACKENDS = ["tenants.sign_in.EmailBackend"]
PASSWORD_HASHERS = ["tenants.hashers.Argon2id"]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "/sign-in"
LOGIN_REDIRECT_URL = "/"

SESSION_ENGINE = "django.contrib.sessions.backends.db"
SESSION_COOKIE_NAME = "tokenworks_session"
SESSION_COOKIE_AGE = 12 * 3600
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = env_bool("TOKENWORKS_SECURE_COOKIES", _SERVED_BY_HTTPS)
CSRF_COOKIE_NAME = "tokenworks_csrf"
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SECURE = SESSION_COOKIE_SECURE
CSRF_FAILURE_VIEW = "console.errors.csrf_failure"
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"

SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if _SERVED_BY_HTTPS else 0
SECURE_PROXY_SSL_HEADER = (
    ("HTTP_X_FORWARDED_PROTO", "https") if env_bool("TOKENWORKS_BEHIND_PROXY", False) else None
)
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        f"connect-src 'self' {GATEWAY_URL}",
        "img-src 'self' data:",
        "base-uri 'none'",
        "object-src 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)

DATA_UPLOAD_MAX_MEMORY_SIZE = 1_048_576
STATIC_URL = "/static/"
STATIC_ROOT = None  # files are served from where they lie; nothing is collected
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
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

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
LOGGING_CONFIG = None
