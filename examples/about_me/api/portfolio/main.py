"""HTTP interface of the portfolio: list projects, count visits, and receive messages for the owner."""

import logging
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request, Response
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel, StringConstraints
from redis.asyncio import Redis
from redis.exceptions import RedisError

from . import logs, settings

HOUR = 3600
log = logging.getLogger(__name__)
# Configure logging here and not in `lifespan`, because uvicorn writes its first logs before it calls `lifespan`. This call replaces
# uvicorn's own settings, because uvicorn configures logging before it imports this module.
logs.configure()


class Page(StrEnum):
    ABOUT = "about"
    PROJECTS = "projects"
    CONTACT = "contact"


class Project(BaseModel):
    slug: str
    title: str
    summary: str
    year: int
    link: str | None


class NewMessage(BaseModel):
    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80)]
    email: Annotated[str, StringConstraints(to_lower=True, pattern=r"^[^@\s]+@[^@\s]+$", max_length=200)]
    body: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=4000)]


class Message(BaseModel):
    """Stored message without the sender's email address, because only the owner of the site may see the address."""

    id: uuid.UUID
    name: str
    body: str
    created_at: datetime


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.cache = Redis(**settings.cache_server())
    app.state.pool = AsyncConnectionPool(
        kwargs={**settings.database(), "row_factory": dict_row},
        min_size=1,
        max_size=8,
        timeout=5,
        open=False,
        check=AsyncConnectionPool.check_connection,
    )
    await app.state.pool.open()
    yield
    await app.state.pool.close()
    await app.state.cache.aclose()


app = FastAPI(title="About me", lifespan=lifespan, docs_url="/api/docs", openapi_url="/api/openapi.json")


@app.middleware("http")
async def observe(request: Request, call_next):
    """Give every request an id, and log every request except health checks."""
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
        if request.url.path not in ("/health", "/ready"):
            seconds = round(time.perf_counter() - started, 4)
            fields = {"method": request.method, "path": request.url.path, "status": status, "seconds": seconds}
            log.info("request", extra={"fields": fields})
        logs.request_id.reset(token)


async def rows(request: Request, sql: str, *values: Any) -> list[dict[str, Any]]:
    async with request.app.state.pool.connection() as connection:
        return await (await connection.execute(sql, values)).fetchall()


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok", "release": settings.RELEASE}


@app.get("/ready")
async def ready(request: Request, response: Response) -> dict[str, str]:
    """Answer 503 if the database fails. The cache may fail, because all pages work without the cache."""
    state = {"database": "ok", "cache": "ok", "release": settings.RELEASE}
    try:
        await rows(request, "SELECT 1")
    except Exception as error:
        state["database"], response.status_code = type(error).__name__, 503
    try:
        await request.app.state.cache.ping()
    except (RedisError, OSError) as error:
        state["cache"] = type(error).__name__
    return state


@app.get("/api/release")
async def release() -> dict[str, str]:
    return {"release": settings.RELEASE, "slot": settings.SLOT}


@app.get("/api/projects")
async def projects(request: Request) -> list[Project]:
    return await rows(request, "SELECT slug, title, summary, year, link FROM projects ORDER BY year DESC, slug")


@app.get("/api/visits/{page}")
async def visits(request: Request, page: Page) -> dict[str, int | None]:
    return {"visits": await read_count(request.app.state.cache.hget("visits", page))}


@app.post("/api/visits/{page}")
async def visit(request: Request, page: Page) -> dict[str, int | None]:
    """Count a visit. Rendering a page counts no visit, because health checks and prefetching browsers also render pages."""
    return {"visits": await read_count(request.app.state.cache.hincrby("visits", page, 1))}


async def read_count(reply: Any) -> int | None:
    """Return a count from Redis, or None if the cache is unavailable."""
    try:
        return int(await reply or 0)
    except (RedisError, OSError):
        log.warning("the cache is unavailable: visits are not counted", exc_info=True)
        return None


@app.post("/api/messages", status_code=201)
async def send(request: Request, message: NewMessage) -> Message:
    if await sent_within_the_hour(request.app.state.cache, message.email) > settings.CONTACTS_PER_HOUR:
        raise HTTPException(429, "too many messages from this sender; try again in an hour", {"Retry-After": str(HOUR)})
    [stored] = await rows(
        request,
        "INSERT INTO messages (name, email, body) VALUES (%s, %s, %s) RETURNING id, name, body, created_at",
        message.name,
        message.email,
        message.body,
    )
    return stored


async def sent_within_the_hour(cache: Redis, sender: str) -> int:
    """Count a message, and return how many messages this sender has sent within the hour.

    Without the cache return 0, because accepting a message matters more than the limit.
    """
    try:
        async with cache.pipeline() as commands:
            count, _ = await commands.incr(f"contact:{sender}").expire(f"contact:{sender}", HOUR, nx=True).execute()
        return count
    except (RedisError, OSError):
        log.warning("the cache is unavailable: messages are not limited", exc_info=True)
        return 0


@app.get("/api/messages/{message}")
async def one(request: Request, message: uuid.UUID) -> Message:
    """Return a message to anyone who knows the message's id. Nobody can guess an id, because ids are random and never listed."""
    messages = await rows(request, "SELECT id, name, body, created_at FROM messages WHERE id = %s", message)
    if not messages:
        raise HTTPException(404, "there is no such message")
    return messages[0]
