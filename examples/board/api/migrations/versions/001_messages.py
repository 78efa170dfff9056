"""Create the table of messages."""

from alembic import op

revision, down_revision = "001", None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE messages (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            author text NOT NULL,
            body text NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            work_seconds double precision NOT NULL DEFAULT 0,
            summary text,
            attempts integer NOT NULL DEFAULT 0,
            processed integer NOT NULL DEFAULT 0,
            words tsvector GENERATED ALWAYS AS (to_tsvector('simple', author || ' ' || body)) STORED
        )
    """)
    op.execute("CREATE INDEX messages_words ON messages USING gin (words)")


def downgrade() -> None:
    op.execute("DROP TABLE messages")
