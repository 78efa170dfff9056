"""The worker: one job at a time. SIGTERM lets it finish the job in hand and take no other (RQ's warm shutdown)."""

import logging
from pathlib import Path

import psycopg
from rq import SimpleWorker

from . import logs, settings
from .jobs import enqueue, queue

ALIVE = Path("/tmp/alive")
log = logging.getLogger(__name__)


class Worker(SimpleWorker):
    """Runs jobs in its own process and leaves a mark while it lives."""

    def heartbeat(self, *args: object, **kwargs: object) -> None:
        ALIVE.touch()
        super().heartbeat(*args, **kwargs)


def sweep(summaries) -> None:
    """Ask again for summaries whose message was stored but whose job was not (the api died in between)."""
    with psycopg.connect(**settings.database()) as connection:
        rows = connection.execute(
            "SELECT id, work_seconds FROM messages WHERE summary IS NULL AND created_at < now() - interval '30 seconds'"
        ).fetchall()
    for message, seconds in rows:
        enqueue(summaries, message, seconds)
    log.info("swept", extra={"fields": {"found": len(rows)}})


def main() -> None:
    logs.configure()
    summaries = queue()
    sweep(summaries)
    Worker([summaries], connection=summaries.connection, default_worker_ttl=60).work(
        logging_level="INFO", with_scheduler=False
    )


if __name__ == "__main__":
    main()
