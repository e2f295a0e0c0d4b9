"""What the gateway knows, in a database: SQLite, or PostgreSQL, which several gateways can share."""
