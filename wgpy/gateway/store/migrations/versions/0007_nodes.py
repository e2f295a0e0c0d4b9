"""Gateways that share a database: each is a node, and a session belongs to one of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0007"
down_revision: str | None = "0006"


def upgrade() -> None:
    op.create_table(
        "nodes",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("interface", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=False),
        sa.Column("seen_at", sa.Float(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("ailment", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.add_column("sessions", sa.Column("number", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("sessions", sa.Column("node", sa.Text(), nullable=False, server_default=""))
    op.add_column("sessions", sa.Column("carried", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("sessions", sa.Column("moved", sa.Integer(), nullable=True))
    if op.get_bind().dialect.name == "sqlite":  # the only one that had sessions before
        op.execute("UPDATE sessions SET number = rowid")
    op.create_index(op.f("ix_sessions_number"), "sessions", ["number"], unique=False)
    op.create_index(op.f("ix_sessions_moved"), "sessions", ["moved"], unique=False)
