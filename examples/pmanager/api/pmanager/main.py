"""HTTP interface: middleware of all requests, health checks and metrics."""

import logging
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest, multiprocess
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from . import logs, projects, settings
from .sessions import engine, sessions

logs.configure()
log = logging.getLogger(__name__)
LATENCY = Histogram("http_request_duration_seconds", "Time to answer a request", ["method", "route", "status"])
UNLOGGED = ("/health", "/ready", "/metrics")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await engine.dispose()


app = FastAPI(title="pmanager", lifespan=lifespan, docs_url="/api/docs", openapi_url="/api/openapi.json")
app.include_router(projects.router)


@app.middleware("http")
async def observe(request: Request, call_next):
    """Give every request an id, and log the request with its duration."""
    sent_id = request.headers.get("x-request-id", "")
    token = logs.request_id.set(sent_id[:100] if sent_id.isascii() and sent_id else str(uuid.uuid4()))
    started, status = time.perf_counter(), 500
    try:
        response = await call_next(request)
        status = response.status_code
        response.headers["X-Request-Id"] = logs.request_id.get() or ""
        response.headers["X-Release"] = settings.RELEASE
        return response
    except Exception:
        log.exception("request failed")
        raise
    finally:
        route = getattr(request.scope.get("route"), "path", "unknown")
        seconds = time.perf_counter() - started
        LATENCY.labels(request.method, route, status).observe(seconds)
        if route not in UNLOGGED:
            fields = {
                "method": request.method,
                "path": request.url.path,
                "status": status,
                "seconds": round(seconds, 4),
            }
            log.info("request", extra={"fields": fields})
        logs.request_id.reset(token)


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok", "release": settings.RELEASE}


@app.get("/ready")
async def ready(response: Response) -> dict[str, str]:
    state = {"database": "ok", "release": settings.RELEASE}
    try:
        async with sessions() as session:
            await session.execute(text("SELECT 1"))
    except (SQLAlchemyError, OSError) as error:
        state["database"], response.status_code = type(error).__name__, 503
    return state


@app.get("/metrics")
def metrics() -> Response:
    """Return the metrics of all worker processes together."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
