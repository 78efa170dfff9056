"""Worker that runs one job at a time.

On SIGTERM the worker finishes its current job and takes no other job (RQ's warm shutdown).
"""

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
    """Run jobs in the worker's own process, touch the file ALIVE at each heartbeat, and enqueue lost jobs again."""

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
    """Enqueue the lost jobs of messages again.

    A job is lost if the api stopped before it enqueued the job, or if a worker stopped before it started the job.
    """
    with psycopg.connect(**settings.database()) as connection:
        rows = connection.execute(
            "SELECT id, work_seconds FROM messages"
            " WHERE summary IS NULL AND attempts = 0 AND created_at < now() - interval '60 seconds'"
        ).fetchall()
    waiting, started = set(summaries.job_ids), set(summaries.started_job_registry.get_job_ids())
    messages = [row for row in rows if job_id(row[0]) not in waiting | started]
    for message, seconds in messages:
        enqueue(summaries, message, seconds)
    if messages:
        log.warning("swept", extra={"fields": {"found": len(messages)}})


def main() -> None:
    logs.configure()
    summaries = queue()
    while True:
        # Wait briefly, so that a missed notification delays a job only by seconds. Maintenance finds the jobs of dead workers.
        worker = Worker([summaries], connection=summaries.connection, worker_ttl=20, maintenance_interval=30)
        try:
            return worker.work()
        except RedisError:
            # RQ itself waits while Redis does not answer. But it raises if Redis refuses writes, for example during a failover.
            log.warning("the queue is unavailable; trying again", exc_info=True)
            time.sleep(1)


if __name__ == "__main__":
    main()
