"""Notes: a minimal application with a page, an HTTP interface and data. Replace this code with your application."""

import logging
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from fastapi import FastAPI, Request, Response
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, PoolTimeout
from pydantic import BaseModel, Field

from . import logs, settings

log = logging.getLogger(__name__)
pool = ConnectionPool(
    kwargs={**settings.database(), "row_factory": dict_row},
    min_size=1,
    max_size=8,
    timeout=5,
    open=False,
    check=ConnectionPool.check_connection,
)


class NewNote(BaseModel):
    text: str = Field(min_length=1, max_length=500)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    with pool:
        yield


app = FastAPI(title="notes", lifespan=lifespan, docs_url="/api/docs", openapi_url="/api/openapi.json")


@app.middleware("http")
async def observe(request: Request, call_next):
    """Log every request with the id that the gateway gave it."""
    token = logs.request_id.set(request.headers.get("x-request-id") or str(uuid.uuid4()))
    started = time.perf_counter()
    try:
        response = await call_next(request)
        if request.url.path not in ("/health", "/ready"):
            fields = {
                "method": request.method,
                "path": request.url.path,
                "status": response.status_code,
                "seconds": round(time.perf_counter() - started, 4),
            }
            log.info("request", extra={"fields": fields})
        return response
    except Exception:
        log.exception("request failed")
        raise
    finally:
        logs.request_id.reset(token)


@app.get("/health")
def health() -> dict[str, str]:
    """Report that the process is alive. `ready` reports whether the process can serve requests."""
    return {"status": "ok"}


@app.get("/ready")
def ready(response: Response) -> dict[str, str]:
    try:
        with pool.connection(timeout=2) as connection:
            connection.execute("SELECT 1")
    except (psycopg.Error, PoolTimeout) as error:
        response.status_code = 503
        return {"database": type(error).__name__}
    return {"database": "ok"}


@app.get("/api/release")
def release() -> dict[str, str]:
    return {"release": settings.RELEASE, "slot": settings.SLOT}


@app.post("/api/notes", status_code=201)
def write(note: NewNote) -> dict[str, Any]:
    with pool.connection() as connection:
        row = connection.execute("INSERT INTO notes (text) VALUES (%s) RETURNING id, text", (note.text,)).fetchone()
    assert row
    return row


@app.get("/api/notes")
def newest() -> list[dict[str, Any]]:
    with pool.connection() as connection:
        return connection.execute("SELECT id, text FROM notes ORDER BY id DESC LIMIT 50").fetchall()
