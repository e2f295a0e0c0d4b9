# uplinks.sh INTERFACE HEADQUARTERS UPLINK ITS_ROUTER UPLINK ITS_ROUTER: lead the tunnel by the better of two uplinks.
# Each round asks headquarters ten times by both. An uplink costs its round trip in milliseconds, and 10 for each percent
# it loses; the tunnel moves when the other costs less than half. It ends with the tunnel.
interface=$1 headquarters=$2
cost() {
	ping -q -c 10 -i 0.05 -W 1 -I "$1" "$headquarters" 2>/dev/null | awk '
		/packet loss/ { sub(/%.*/, ""); cost = 10 * $NF }
		/^rtt/ { split($4, times, "/"); cost += times[1] }
		END { printf "%d", NR ? cost : 1000 }'
}
used=$3 router=$4 other=$5 other_router=$6
ip route replace "$headquarters" via "$router" dev "$used"
while [ -e "/sys/class/net/$interface" ]; do
	other_cost=$(cost "$other")
	if [ $((2 * other_cost)) -lt "$(cost "$used")" ]; then
		set -- "$used" "$router"
		used=$other router=$other_router other=$1 other_router=$2
		ip route replace "$headquarters" via "$router" dev "$used"
	fi
	sleep 0.5
done
