"""Web pages and the REST API, above the service."""
