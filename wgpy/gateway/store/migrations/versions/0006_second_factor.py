"""Whether local users need a second factor."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"


def upgrade() -> None:
    op.add_column("endpoint", sa.Column("second_factor", sa.Boolean(), nullable=False, server_default=sa.true()))
