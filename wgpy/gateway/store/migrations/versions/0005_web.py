"""The web server's settings, and the API's tokens."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"


def upgrade() -> None:
    op.add_column("endpoint", sa.Column("url", sa.Text(), nullable=False, server_default=""))
    op.add_column("endpoint", sa.Column("admin_group", sa.Text(), nullable=False, server_default="admins"))
    op.create_table(
        "tokens",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False, unique=True),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("made_at", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float()),
        sa.Column("used_at", sa.Float()),
    )
