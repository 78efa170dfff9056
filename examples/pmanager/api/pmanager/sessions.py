"""The way to the database."""

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from . import settings

# Of each worker process; both slots together stay below PostgreSQL's 100 connections.
engine = create_async_engine(settings.database(), pool_size=4, max_overflow=2, pool_timeout=5, pool_pre_ping=True)
sessions = async_sessionmaker(engine, expire_on_commit=False)
