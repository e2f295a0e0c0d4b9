# watch.sh INTERFACE FAR-END NETWORK METRIC: keep a route through this tunnel while its far end answers.
# This is what BGP's keepalives or a cloud's health checks do. The script ends with the interface.
interface=$1 far=$2 network=$3 metric=$4
misses=2
while [ -e "/sys/class/net/$interface" ]; do
	if ping -q -c 1 -W 1 -I "$interface" "$far" >/dev/null 2>&1; then
		[ "$misses" = 0 ] || ip route replace "$network" dev "$interface" metric "$metric"
		misses=0
	else
		misses=$((misses + 1))
		[ "$misses" != 2 ] || ip route delete "$network" dev "$interface" metric "$metric" 2>/dev/null
	fi
	sleep 0.3
done
