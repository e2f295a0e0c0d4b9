"""wgpy: a complete userspace WireGuard in pure Python, for Linux."""

__version__ = "0.1.0"
