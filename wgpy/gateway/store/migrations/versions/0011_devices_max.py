"""How many devices people may have."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"


def upgrade() -> None:
    op.add_column("endpoint", sa.Column("devices_max", sa.Integer(), nullable=False, server_default="10"))
