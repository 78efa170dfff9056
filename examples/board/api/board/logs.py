"""Write each log line as a JSON object with the id of its request."""

import json
import logging
import re
import sys
import time
from contextvars import ContextVar

from .settings import RELEASE, SLOT

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def with_request_id(sql: str) -> str:
    """Return the SQL statement after a comment with the request id.

    PostgreSQL shows the comment in its log and in its list of running statements. Unsafe characters are removed, because a
    client may send any id: the id must not end the comment or contain a placeholder.
    """
    safe_id = re.sub(r"[^A-Za-z0-9._-]", "", request_id.get() or "")
    return f"/* request {safe_id} */ {sql}" if safe_id else sql


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
