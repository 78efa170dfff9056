"""The portfolio's HTTP interface: projects to show, visits to count, and messages to its owner."""

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
# Here and not in `lifespan`: uvicorn has set up its own before it imports this, and speaks before it calls that.
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
    """What its sender is shown; the address is for the owner only."""

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
    """A request id and a log line for every request but the probes'."""
    given = request.headers.get("x-request-id", "")
    token = logs.request_id.set(given[:100] if given.isascii() and given else str(uuid.uuid4()))
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
    """Without the database there is nothing to show; without the cache only the count of visits is missing."""
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
    return {"visits": await counted(request.app.state.cache.hget("visits", page))}


@app.post("/api/visits/{page}")
async def visit(request: Request, page: Page) -> dict[str, int | None]:
    """Counted here and not where a page is rendered, for that is also done for probes and prefetching browsers."""
    return {"visits": await counted(request.app.state.cache.hincrby("visits", page, 1))}


async def counted(answer: Any) -> int | None:
    try:
        return int(await answer or 0)
    except (RedisError, OSError):
        log.warning("the cache is away: visits are not counted", exc_info=True)
        return None


@app.post("/api/messages", status_code=201)
async def send(request: Request, message: NewMessage) -> Message:
    if await sent_within_the_hour(request.app.state.cache, message.email) > settings.CONTACTS_PER_HOUR:
        raise HTTPException(429, "that is enough for now; try again in an hour", {"Retry-After": str(HOUR)})
    [stored] = await rows(
        request,
        "INSERT INTO messages (name, email, body) VALUES (%s, %s, %s) RETURNING id, name, body, created_at",
        message.name,
        message.email,
        message.body,
    )
    return stored


async def sent_within_the_hour(cache: Redis, sender: str) -> int:
    """How often this sender has tried; a message is worth more than the limit, so without the cache there is none."""
    try:
        async with cache.pipeline() as both:
            tries, _ = await both.incr(f"contact:{sender}").expire(f"contact:{sender}", HOUR, nx=True).execute()
        return tries
    except (RedisError, OSError):
        log.warning("the cache is away: messages are not limited", exc_info=True)
        return 0


@app.get("/api/messages/{message}")
async def one(request: Request, message: uuid.UUID) -> Message:
    """Who has the id has sent it, or was given it: ids are random, and there is no list."""
    found = await rows(request, "SELECT id, name, body, created_at FROM messages WHERE id = %s", message)
    if not found:
        raise HTTPException(404, "there is no such message")
    return found[0]
