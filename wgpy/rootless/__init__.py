"""Tunnels for which no privileges are needed: what those of all networks share, and `connect`, which makes one."""
