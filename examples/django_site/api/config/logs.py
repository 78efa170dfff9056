"""Write each log line as a JSON object with the id of its request."""

import json
import logging
import time
from contextvars import ContextVar

from .release import RELEASE, SLOT

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


class JsonFormatter(logging.Formatter):
    converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": request_id.get(),
            "release": RELEASE,
            "slot": SLOT,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps({key: value for key, value in line.items() if value is not None})


_PROPAGATE = {"handlers": [], "propagate": True, "level": "INFO"}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "config.logs.JsonFormatter"}},
    "handlers": {"stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "json"}},
    "root": {"handlers": ["stdout"], "level": "INFO"},
    "loggers": {
        "django": _PROPAGATE,
        "gunicorn.error": _PROPAGATE,
        # Turn off gunicorn's log of requests, because `middleware.observe` logs each request.
        "gunicorn.access": {"handlers": [], "propagate": False},
        "django.server": {"handlers": [], "propagate": False},
        "django.request": {"handlers": [], "level": "ERROR"},
    },
}
