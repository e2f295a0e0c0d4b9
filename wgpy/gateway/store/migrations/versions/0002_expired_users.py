"""Users whose last day is over stay expired."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"


def upgrade() -> None:
    op.add_column("users", sa.Column("expired", sa.Boolean(), nullable=False, server_default=sa.false()))
