"""What lets other programs use a tunnel: forwards and proxies, between the host's network and a tunnel's."""
