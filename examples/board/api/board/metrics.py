"""Prometheus metrics, summed over all gunicorn processes."""

import os
from datetime import UTC, datetime

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest, multiprocess
from prometheus_client.core import GaugeMetricFamily
from rq import Queue

from .settings import RELEASE, SLOT

LATENCY = Histogram(
    "http_request_duration_seconds",
    "Seconds from request to response.",
    ["method", "route", "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
ERRORS = Counter(
    "http_request_errors_total", "Requests that ended with status 5xx or an exception.", ["method", "route"]
)
STORED = Counter("board_messages_stored_total", "Messages committed.")


class _QueueDepth:
    def __init__(self, summaries: Queue) -> None:
        self.summaries = summaries

    def collect(self):
        yield GaugeMetricFamily("board_queue_depth", "Jobs that wait.", value=self.summaries.count)
        oldest_help = "Seconds that the next job has waited."
        yield GaugeMetricFamily("board_queue_oldest_seconds", oldest_help, value=self.oldest())
        release = GaugeMetricFamily(
            "board_release_info", "Release and slot of this process.", labels=["release", "slot"]
        )
        release.add_metric([RELEASE, SLOT], 1)
        yield release

    def oldest(self) -> float:
        for job in self.summaries.get_jobs(length=1):
            if job.enqueued_at:
                start = job.enqueued_at.replace(tzinfo=job.enqueued_at.tzinfo or UTC)
                return (datetime.now(UTC) - start).total_seconds()
        return 0


def page(summaries: Queue) -> tuple[bytes, str]:
    """Return the metrics of all processes, and the content type of the metrics."""
    registry = CollectorRegistry()
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        multiprocess.MultiProcessCollector(registry)
    else:
        for metric in (LATENCY, ERRORS, STORED):
            registry.register(metric)
    registry.register(_QueueDepth(summaries))
    return generate_latest(registry), CONTENT_TYPE_LATEST
