"""Connections to the database."""

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from . import settings

# The limits apply to each worker process. They are low, because the processes of both slots share PostgreSQL's 100 connections.
engine = create_async_engine(settings.database(), pool_size=4, max_overflow=2, pool_timeout=5, pool_pre_ping=True)
sessions = async_sessionmaker(engine, expire_on_commit=False)
