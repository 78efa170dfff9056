"""Run all migrations in one transaction, under a lock that makes a second run wait."""

from alembic import context
from pmanager import settings
from pmanager.models import Base
from sqlalchemy import create_engine, pool, text

with create_engine(settings.database(), poolclass=pool.NullPool).connect() as connection:
    context.configure(connection=connection, target_metadata=Base.metadata, transaction_per_migration=False)
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(20261122)"))
        context.run_migrations()
