"""Run all migrations in one transaction, under a lock that makes a second run wait."""

from alembic import context
from board import settings
from sqlalchemy import URL, create_engine, pool, text

database = settings.database()
url = URL.create(
    "postgresql+psycopg",
    database["user"],
    database["password"],
    database["host"],
    int(database["port"]),
    database["dbname"],
)
with create_engine(url, poolclass=pool.NullPool).connect() as connection:
    context.configure(connection=connection, transaction_per_migration=False)
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(20261121)"))
        context.run_migrations()
