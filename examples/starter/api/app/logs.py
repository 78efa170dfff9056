"""Write each log line as a JSON object with the id of its request."""

import json
import logging
import time
from contextvars import ContextVar

from . import settings

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


class Json(logging.Formatter):
    converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "request_id": request_id.get(),
            "release": settings.RELEASE,
            "slot": settings.SLOT,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps({key: value for key, value in line.items() if value is not None})
