"""Our own TCP/IP stack as a tunnel's network: asyncio's transports, servers and datagram endpoints on `wgpy.stack`."""
