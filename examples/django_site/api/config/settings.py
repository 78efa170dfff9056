"""Settings from environment variables. Secrets come from files whose paths are in the variables.

Without a variable the safe value applies: DEBUG is off, and no host is allowed.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

from .logs import LOGGING as LOGGING
from .release import RELEASE, SLOT


def _words(name: str) -> list[str]:
    return os.environ.get(name, "").split()


def _secret(name: str) -> str:
    file = os.environ.get(f"{name}_FILE")
    return Path(file).read_text().strip() if file else ""


BASE = Path(__file__).parent.parent
SECRET_KEY = _secret("DJANGO_KEY")
DEBUG = os.environ.get("DEBUG") == "true"

PUBLIC_URL = os.environ.get("PUBLIC_URL", "")
ALLOWED_HOSTS = [urlsplit(PUBLIC_URL).hostname or "", *_words("ALLOWED_HOSTS")]
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL] if PUBLIC_URL else []
# Trust the header X-Forwarded-Proto, because only the gateway can reach this tier and the gateway sets the header.
TLS = PUBLIC_URL.startswith("https:")
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TLS else None
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = TLS
X_FRAME_OPTIONS = "DENY"

INSTALLED_APPS = [
    "articles",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "config.middleware.observe",
    "config.middleware.answer_probes",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
_FILES = "django.template.loaders.app_directories.Loader"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            # In development Django reads the templates again for each page.
            "loaders": [_FILES] if DEBUG else [("django.template.loaders.cached.Loader", [_FILES])],
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "config.release.context",
            ],
        },
    }
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": os.environ.get("DATABASE_HOST"),
        "PORT": os.environ.get("DATABASE_PORT"),
        "NAME": os.environ.get("DATABASE_NAME"),
        "USER": os.environ.get("DATABASE_USER"),
        "PASSWORD": _secret("DATABASE_PASSWORD"),
        "OPTIONS": {
            "application_name": f"django-site-{SLOT}",
            "connect_timeout": 5,
            "pool": {"min_size": 1, "max_size": 4, "timeout": 5},
        },
        # Test each connection before a request uses the connection, because a restart of the database closes all connections.
        "CONN_HEALTH_CHECKS": True,
    }
}


def _redis(prefix: str) -> dict[str, object]:
    return {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": f"redis://{os.environ.get('CACHE_HOST')}:{os.environ.get('CACHE_PORT')}",
        "KEY_PREFIX": prefix,
        "OPTIONS": {"password": _secret("CACHE_PASSWORD"), "socket_connect_timeout": 5, "health_check_interval": 15},
    }


# Both slots use the same Redis. Each release reads only its own cached values, because another release may have other classes.
# All releases share the sessions, because otherwise a switch would log all users out.
CACHES = {"default": _redis(RELEASE), "sessions": _redis("sessions")}
SESSION_ENGINE = "django.contrib.sessions.backends.cache"
SESSION_CACHE_ALIAS = "sessions"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "articles:list"

# The web tier serves the files that collectstatic has copied to a folder for each release. In development Django serves the source
# files below /api/static/, because the web tier does not have the source files.
STATIC_ROOT = Path(os.environ.get("STATIC_ROOT", "/srv/static")) / RELEASE
STATIC_URL = "/api/static/" if DEBUG else "/static/"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
}

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LOGGING_CONFIG = "logging.config.dictConfig"
TIME_ZONE = "UTC"
USE_TZ = True
