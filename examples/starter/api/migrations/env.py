"""Migrations run in one transaction under a lock, so that two of them at once wait for each other."""

from alembic import context
from app import settings
from sqlalchemy import URL, create_engine, pool, text

given = settings.database()
url = URL.create(
    "postgresql+psycopg", given["user"], given["password"], given["host"], int(given["port"]), given["dbname"]
)
with create_engine(url, poolclass=pool.NullPool).connect() as connection:
    context.configure(connection=connection, transaction_per_migration=False)
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(1)"))
        context.run_migrations()
