"""Create the table of notes."""

from alembic import op

revision, down_revision = "001", None


def upgrade() -> None:
    op.execute("CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text NOT NULL)")


def downgrade() -> None:
    op.execute("DROP TABLE notes")
