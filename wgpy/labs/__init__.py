"""Networks built on one machine, in network namespaces, with real daemons and real traffic: the base of the labs."""
