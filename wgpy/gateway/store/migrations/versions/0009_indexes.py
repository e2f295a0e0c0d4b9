"""Indexes for the console: an object's changes, and why sessions ended lately."""

from __future__ import annotations

from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"


def upgrade() -> None:
    op.create_index("ix_audit_object", "audit", ["kind", "name"])
    op.drop_index("ix_sessions_ended_at", "sessions")
    op.create_index("ix_sessions_ended", "sessions", ["ended_at", "reason"])
