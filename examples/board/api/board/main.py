"""HTTP interface of the board."""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import psycopg
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel, Field
from redis.asyncio import Redis
from redis.exceptions import RedisError

from . import jobs, logs, metrics, settings

log = logging.getLogger(__name__)
FIELDS = "id, author, body, created_at, summary, attempts, processed"


class NewMessage(BaseModel):
    author: str = Field(min_length=1, max_length=80)
    body: str = Field(min_length=1, max_length=4000)
    work_seconds: float = Field(
        default=0, ge=0, le=120, description="Seconds that the job of this message takes. For tests."
    )


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    logs.configure()
    app.state.summaries = jobs.queue()
    app.state.cache = Redis(**settings.cache_server())
    pool = AsyncConnectionPool(
        kwargs={**settings.database(), "row_factory": dict_row},
        min_size=1,
        max_size=8,
        timeout=5,
        # Give up after 3 s, because the pool doubles the delay after each failed attempt. The next request tries again at once.
        reconnect_timeout=3,
        open=False,
        check=AsyncConnectionPool.check_connection,
    )
    await pool.open()
    app.state.pool = pool
    yield
    await pool.close()
    await app.state.cache.aclose()


app = FastAPI(title="board", lifespan=lifespan, docs_url="/api/docs", openapi_url="/api/openapi.json")


@app.middleware("http")
async def observe(request: Request, call_next):
    """Give every request an id, measure the request, and log every request except health checks and requests of metrics."""
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
        metrics.LATENCY.labels(request.method, route, status).observe(seconds)
        if status >= 500:
            metrics.ERRORS.labels(request.method, route).inc()
        if route not in ("/health", "/ready", "/metrics"):
            fields = {
                "method": request.method,
                "path": request.url.path,
                "status": status,
                "seconds": round(seconds, 4),
            }
            log.info("request", extra={"fields": fields})
        logs.request_id.reset(token)


@app.exception_handler(psycopg.OperationalError)
@app.exception_handler(psycopg.InternalError)
async def database_unavailable(_: Request, error: psycopg.Error) -> JSONResponse:
    """Return status 503 if the database is unavailable, for example during a failover. The client can retry after a second.

    psycopg raises InternalError if a connection is cut during a response, or if it leads to a server that became read-only.
    """
    log.warning(
        "the database is unavailable", extra={"fields": {"cause": type(error).__name__, "said": str(error).strip()}}
    )
    detail = {"detail": "the database is unavailable; try again", "cause": type(error).__name__}
    return JSONResponse(detail, 503, headers={"Retry-After": "1"})


async def rows(request: Request, sql: str, *values: Any) -> list[dict[str, Any]]:
    async with request.app.state.pool.connection() as connection:
        return await (await connection.execute(logs.with_request_id(sql), values)).fetchall()


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok", "release": settings.RELEASE}


@app.get("/ready")
async def ready(request: Request, response: Response) -> dict[str, str]:
    state = {"database": "ok", "cache": "ok", "release": settings.RELEASE}
    try:
        await rows(request, "SELECT 1")
    except Exception as error:
        state["database"], response.status_code = type(error).__name__, 503
    try:
        await request.app.state.cache.ping()
    except (RedisError, OSError) as error:
        state["cache"], response.status_code = type(error).__name__, 503
    return state


@app.get("/metrics")
def show_metrics(request: Request) -> Response:
    content, kind = metrics.page(request.app.state.summaries)
    return Response(content, media_type=kind)


@app.get("/api/release")
async def release() -> dict[str, str]:
    return {"release": settings.RELEASE, "slot": settings.SLOT}


@app.post("/api/messages", status_code=201)
async def post(request: Request, message: NewMessage) -> dict[str, Any]:
    """Commit a message, then enqueue its job.

    If the queue is unavailable, the request still succeeds, and the worker's `sweep` enqueues the job later.
    """
    [stored] = await rows(
        request,
        f"INSERT INTO messages (author, body, work_seconds) VALUES (%s, %s, %s) RETURNING {FIELDS}",
        message.author,
        message.body,
        message.work_seconds,
    )
    metrics.STORED.inc()
    try:
        await run_in_threadpool(jobs.enqueue, request.app.state.summaries, stored["id"], message.work_seconds)
        event = {"type": "message", "id": stored["id"], "author": message.author, "body": message.body}
        await request.app.state.cache.publish(jobs.FEED, json.dumps(event))
    except (RedisError, OSError):
        log.warning("the queue is unavailable; the worker will enqueue the job later", exc_info=True)
    return stored


@app.get("/api/messages")
async def newest(
    request: Request, limit: Annotated[int, Query(ge=1, le=500)] = 50, before: int | None = None
) -> list[dict[str, Any]]:
    return await rows(
        request,
        f"SELECT {FIELDS} FROM messages WHERE id < coalesce(%s, 9223372036854775807) ORDER BY id DESC LIMIT %s",
        before,
        limit,
    )


@app.get("/api/messages/{message}")
async def one(request: Request, message: int) -> dict[str, Any]:
    messages = await rows(request, f"SELECT {FIELDS} FROM messages WHERE id = %s", message)
    if not messages:
        raise HTTPException(404, "there is no such message")
    return messages[0]


@app.get("/api/search")
async def search(request: Request, q: Annotated[str, Query(min_length=1, max_length=200)]) -> list[dict[str, Any]]:
    return await rows(
        request,
        f"SELECT {FIELDS} FROM messages WHERE words @@ plainto_tsquery('simple', %s) ORDER BY id DESC LIMIT 50",
        q,
    )


@app.get("/api/stats")
async def stats(request: Request) -> dict[str, int]:
    """Return exact counts, which tests compare with the messages that they sent."""
    [counts] = await rows(
        request,
        "SELECT count(*) AS messages, count(summary) AS summarised, coalesce(sum(attempts), 0) AS attempts,"
        " coalesce(sum(processed), 0) AS processed, coalesce(max(attempts), 0) AS most_attempts FROM messages",
    )
    return counts


@app.get("/api/slow")
async def slow(seconds: Annotated[float, Query(ge=0, le=120)] = 5) -> dict[str, float | str]:
    """Answer after `seconds`. Tests keep such a request open during a switch."""
    await asyncio.sleep(seconds)
    return {"slept": seconds, "release": settings.RELEASE}


@app.get("/api/feed")
async def feed(request: Request) -> StreamingResponse:
    """Stream new messages and summaries as server-sent events. Send a heartbeat after five seconds without an event."""

    async def events() -> AsyncIterator[str]:
        async with request.app.state.cache.pubsub() as channel:
            await channel.subscribe(jobs.FEED)
            yield f"event: hello\ndata: {json.dumps({'release': settings.RELEASE, 'slot': settings.SLOT})}\n\n"
            while not await request.is_disconnected():
                event = await channel.get_message(ignore_subscribe_messages=True, timeout=5)
                yield f"data: {event['data'].decode()}\n\n" if event else ": beat\n\n"

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})
