"""The queue between api and worker, and the one job there is."""

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
    """Ask for the message's summary. The job carries the message's id: asking twice never makes two of them wait.

    And the id of the request it was asked for in, which the worker's lines then have, too.
    """
    limit, asked = round(seconds) + 60, {"request_id": logs.request_id.get()}
    summaries.enqueue(
        summarise, message, job_id=job_id(message), job_timeout=limit, retry=Retry(max=5), result_ttl=600, meta=asked
    )


def summarise(message: int) -> None:
    """Write the message's summary, once: `attempts` counts the starts, `processed` the summaries written."""
    with psycopg.connect(**settings.database(), autocommit=True) as connection:
        row = connection.execute(
            logs.signed("UPDATE messages SET attempts = attempts + 1 WHERE id = %s RETURNING body, work_seconds"),
            (message,),
        ).fetchone()
        if row is None:
            return
        body, seconds = row
        time.sleep(seconds)
        words = body.split()
        summary = " ".join(words[:8]) + (" …" if len(words) > 8 else "")
        written = connection.execute(
            logs.signed(
                "UPDATE messages SET summary = %s, processed = processed + 1 WHERE id = %s AND summary IS NULL"
            ),
            (summary, message),
        ).rowcount
    log.info("summarised", extra={"fields": {"message_id": message, "written": written, "seconds": seconds}})
    Redis(**settings.cache_server()).publish(FEED, json.dumps({"type": "summary", "id": message, "summary": summary}))
