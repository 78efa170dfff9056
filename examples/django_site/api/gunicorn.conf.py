"""Configuration of gunicorn.

On SIGTERM, gunicorn accepts no new connections and finishes open requests within `graceful_timeout`.
"""

import os

from config import static
from config.logs import LOGGING

bind = "0.0.0.0:8000"
workers = int(os.environ.get("WORKERS", "2"))
worker_class = "gthread"
threads = int(os.environ.get("THREADS", "4"))
worker_tmp_dir = "/tmp"
graceful_timeout = 27
keepalive = 75
timeout = 60
logconfig_dict = LOGGING
control_socket_disable = True


def on_starting(server):
    server.static = static.hold()
