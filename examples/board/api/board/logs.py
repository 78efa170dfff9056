"""One JSON object a line, with the id of the request it belongs to."""

import json
import logging
import re
import sys
import time
from contextvars import ContextVar

from .settings import RELEASE, SLOT

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def signed(sql: str) -> str:
    """The statement with the id of the request it is for, which the database shows: in its log, and while it runs.

    The id may be a user's own: what could end a comment, or be a placeholder, is left out.
    """
    given = re.sub(r"[^A-Za-z0-9._-]", "", request_id.get() or "")
    return f"/* request {given} */ {sql}" if given else sql


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


def configure() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in ("uvicorn", "uvicorn.error", "gunicorn.error", "rq.worker"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("uvicorn.access").disabled = True
