"""What the gateway knows, in a database: SQLite now, and what SQLAlchemy speaks to later."""
