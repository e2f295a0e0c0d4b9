# propagate.sh NETWORK INTERFACE TABLE...: let these attachments reach a network.
network=$1 interface=$2
shift 2
for table; do
	ip route replace "$network" dev "$interface" table "$table"
done
