"""Middleware that runs before Django's own middleware."""

import logging
import time
import uuid

from django.core.cache import caches
from django.db import connection
from django.http import HttpResponse, JsonResponse

from .logs import request_id
from .release import RELEASE

log = logging.getLogger(__name__)


def observe(get_response):
    """Give each request an id, and log each request except health checks."""

    def middleware(request):
        sent_id = request.headers.get("X-Request-Id", "")
        token = request_id.set(sent_id[:100] if sent_id.isascii() and sent_id else str(uuid.uuid4()))
        started = time.perf_counter()
        try:
            response = get_response(request)
            response["X-Request-Id"], response["X-Release"] = request_id.get(), RELEASE
            if request.path not in PROBES:
                seconds = round(time.perf_counter() - started, 4)
                fields = {"method": request.method, "path": request.path, "status": response.status_code}
                log.info("request", extra={"fields": fields | {"seconds": seconds}})
            return response
        finally:
            request_id.reset(token)

    return middleware


def answer_probes(get_response):
    """Answer health checks before Django checks the Host header, because health checks may use any host name."""

    def middleware(request):
        probe = PROBES.get(request.path)
        return probe() if probe else get_response(request)

    return middleware


def _health() -> HttpResponse:
    return HttpResponse("ok\n", content_type="text/plain")


def _ready() -> HttpResponse:
    state = {"database": "ok", "cache": "ok", "release": RELEASE}
    for name, check in (("database", _check_database), ("cache", _check_cache)):
        try:
            check()
        except Exception as error:
            state[name] = type(error).__name__
    return JsonResponse(state, status=200 if state["database"] == state["cache"] == "ok" else 503)


def _check_database() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _check_cache() -> None:
    caches["sessions"].get("ready")


PROBES = {"/health": _health, "/ready": _ready}
