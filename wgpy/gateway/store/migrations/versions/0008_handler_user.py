"""The connect handler's user, and whether flows are logged."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"


def upgrade() -> None:
    op.add_column("endpoint", sa.Column("handler_user", sa.Text(), nullable=False, server_default=""))
    op.add_column("endpoint", sa.Column("flow_log", sa.Boolean(), nullable=False, server_default=sa.false()))
