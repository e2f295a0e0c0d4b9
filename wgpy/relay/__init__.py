"""Forwards and proxies between the host's network and a tunnel's, so that any program can use a tunnel."""
