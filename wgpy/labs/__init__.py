"""Networks built on one machine, in network namespaces, with real daemons and real traffic: what the labs stand on."""
