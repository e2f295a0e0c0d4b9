"""Adapters that let HTTP libraries connect through a tunnel; each module needs the library it is named after."""
