# routes.sh INTERFACE TABLE: route packets from this attachment by its own table only.
ip rule add iif "$1" lookup "$2"
# Destinations without a propagated route end here, and do not fall through to the main table.
ip route add blackhole 10.0.0.0/8 table "$2"
