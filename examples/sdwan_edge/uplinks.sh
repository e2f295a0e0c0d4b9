# uplinks.sh INTERFACE HEADQUARTERS UPLINK ITS_ROUTER UPLINK ITS_ROUTER: route the tunnel over the better of two uplinks.
# In each round, both uplinks send ten pings to headquarters. An uplink costs its round-trip time in milliseconds, plus 10
# for each percent of loss. The tunnel moves if the other uplink costs less than half. The script ends with the tunnel.
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
