"""The worker: one job at a time. SIGTERM lets it finish the job in hand and take no other (RQ's warm shutdown)."""

import logging
import time
from pathlib import Path

import psycopg
from redis.exceptions import RedisError
from rq import Queue, SimpleWorker
from rq.job import Job

from . import logs, settings
from .jobs import enqueue, job_id, queue

ALIVE = Path("/tmp/alive")
log = logging.getLogger(__name__)


class Worker(SimpleWorker):
    """Runs jobs in its own process, leaves a mark while it lives, and looks for forgotten messages now and then."""

    def heartbeat(self, *args: object, **kwargs: object) -> None:
        ALIVE.touch()
        super().heartbeat(*args, **kwargs)

    def perform_job(self, job: Job, queue: Queue) -> bool:
        token = logs.request_id.set(job.meta.get("request_id"))
        try:
            return super().perform_job(job, queue)
        finally:
            logs.request_id.reset(token)

    def run_maintenance_tasks(self) -> None:
        super().run_maintenance_tasks()
        sweep(self.queues[0])


def sweep(summaries: Queue) -> None:
    """Ask again for summaries that nobody is going to write: the api died before it asked, or a worker before it began."""
    with psycopg.connect(**settings.database()) as connection:
        rows = connection.execute(
            "SELECT id, work_seconds FROM messages"
            " WHERE summary IS NULL AND attempts = 0 AND created_at < now() - interval '60 seconds'"
        ).fetchall()
    waiting, started = set(summaries.job_ids), set(summaries.started_job_registry.get_job_ids())
    forgotten = [row for row in rows if job_id(row[0]) not in waiting | started]
    for message, seconds in forgotten:
        enqueue(summaries, message, seconds)
    if forgotten:
        log.warning("swept", extra={"fields": {"found": len(forgotten)}})


def main() -> None:
    logs.configure()
    summaries = queue()
    while True:
        # Short waits, so that a wake-up that is missed costs seconds; maintenance finds what a dead worker held.
        worker = Worker([summaries], connection=summaries.connection, worker_ttl=20, maintenance_interval=30)
        try:
            return worker.work()
        except RedisError:
            # RQ waits where nothing answers; it ends where the queue refuses to be written, as while its primary is chosen.
            log.warning("the queue is away; waiting for it", exc_info=True)
            time.sleep(1)


if __name__ == "__main__":
    main()
