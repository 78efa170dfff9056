"""Create the tables of projects and tasks."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "001", None


def created_at_column() -> sa.Column:
    return sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)


def upgrade() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("description", sa.String, server_default="", nullable=False),
        created_at_column(),
    )
    op.create_table(
        "tasks",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column(
            "project_id", sa.Integer, sa.ForeignKey("projects.id", ondelete="CASCADE"), nullable=False, index=True
        ),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("done", sa.Boolean, server_default="false", nullable=False),
        created_at_column(),
    )


def downgrade() -> None:
    op.drop_table("tasks")
    op.drop_table("projects")
