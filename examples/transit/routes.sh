# routes.sh INTERFACE TABLE: what comes from this attachment is routed by its own table, and by no other.
ip rule add iif "$1" lookup "$2"
# Whatever is not propagated below ends here, instead of falling through to the main table.
ip route add blackhole 10.0.0.0/8 table "$2"
