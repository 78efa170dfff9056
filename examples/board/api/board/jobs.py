"""Queue between api and worker, and its only job, which writes the summary of a message."""

import json
import logging
import time

import psycopg
from redis import Redis
from rq import Queue, Retry

from . import logs, settings

log = logging.getLogger(__name__)
NAME = "summaries"
FEED = "feed"


def queue() -> Queue:
    return Queue(NAME, connection=Redis(**settings.cache_server()))


def job_id(message: int) -> str:
    return f"message-{message}"


def enqueue(summaries: Queue, message: int, seconds: float) -> None:
    """Enqueue the job that writes the summary of a message. `seconds` is the time that the job sleeps.

    The job carries the id of the current request, so the worker's log lines show the id, too.
    """
    limit, metadata = round(seconds) + 60, {"request_id": logs.request_id.get()}
    summaries.enqueue(
        summarise, message, job_id=job_id(message), job_timeout=limit, retry=Retry(max=5), result_ttl=600, meta=metadata
    )


def summarise(message: int) -> None:
    """Write the summary of a message only once.

    The column `attempts` counts the starts of the job, and `processed` counts the written summaries.
    """
    with psycopg.connect(**settings.database(), autocommit=True) as connection:
        row = connection.execute(
            logs.with_request_id(
                "UPDATE messages SET attempts = attempts + 1 WHERE id = %s RETURNING body, work_seconds"
            ),
            (message,),
        ).fetchone()
        if row is None:
            return
        body, seconds = row
        time.sleep(seconds)
        words = body.split()
        summary = " ".join(words[:8]) + (" …" if len(words) > 8 else "")
        written = connection.execute(
            logs.with_request_id(
                "UPDATE messages SET summary = %s, processed = processed + 1 WHERE id = %s AND summary IS NULL"
            ),
            (summary, message),
        ).rowcount
    log.info("summarised", extra={"fields": {"message_id": message, "written": written, "seconds": seconds}})
    Redis(**settings.cache_server()).publish(FEED, json.dumps({"type": "summary", "id": message, "summary": summary}))
