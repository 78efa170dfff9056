"""Write each log line as a JSON object with the id of its request, to stdout and to a file that outlives the container."""

import json
import logging
import socket
import sys
import time
from contextvars import ContextVar
from logging.handlers import RotatingFileHandler

from .settings import LOG_FOLDER, RELEASE, SLOT

KEPT_DAYS = 7
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


def configure() -> None:
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    if LOG_FOLDER.is_dir():
        handlers.append(_log_file())
    for handler in handlers:
        handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    for name in ("uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def _log_file() -> RotatingFileHandler:
    """Delete old log files, and return a handler for this process's own file.

    All replicas of both slots share the folder. Each process needs its own file, because two processes can't rotate the same file.
    """
    for file in LOG_FOLDER.glob("*.log*"):
        if file.stat().st_mtime < time.time() - KEPT_DAYS * 86400:
            file.unlink(missing_ok=True)
    return RotatingFileHandler(LOG_FOLDER / f"{SLOT}-{socket.gethostname()}.log", maxBytes=2**20, backupCount=1)
