"""Client certificates, and the devices that they are bound to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"


def upgrade() -> None:
    op.create_table(
        "authority",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("ca", sa.Text(), nullable=False),
        sa.Column("crl", sa.Text(), nullable=False),
        sa.Column("name_from", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "certificates",
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("serial", sa.Text(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("proved_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["devices.name"]),
        sa.PrimaryKeyConstraint("device"),
    )
    op.add_column("devices", sa.Column("certificate", sa.Text(), nullable=True))
