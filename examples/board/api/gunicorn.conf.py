"""Configuration of gunicorn with uvicorn workers.

On SIGTERM, gunicorn accepts no new connections and finishes open requests within `graceful_timeout`.
"""

import os
import tempfile

os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="metrics-"))

from prometheus_client import multiprocess
from uvicorn_worker import UvicornWorker


class Worker(UvicornWorker):
    CONFIG_KWARGS = {**UvicornWorker.CONFIG_KWARGS, "timeout_graceful_shutdown": 25, "log_config": None}


bind = "0.0.0.0:8000"
workers = int(os.environ.get("WORKERS", "2"))
worker_class = Worker
worker_tmp_dir = "/tmp"
# Turn off the control socket, because the socket needs a writable home directory. Signals are enough to control gunicorn.
control_socket_disable = True
graceful_timeout = 27
keepalive = 75
timeout = 60


def child_exit(server, worker):
    multiprocess.mark_process_dead(worker.pid)
