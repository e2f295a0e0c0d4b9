"""What Alembic runs to migrate: the connection is given by `wgpy.gateway.store.database`."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
