# uplinks.sh INTERFACE HEADQUARTERS FIRST ITS_ROUTER SECOND ITS_ROUTER: lead the tunnel by the better of two uplinks.
# Each round asks headquarters ten times by both. The first is used until it loses over a quarter; it ends with the tunnel.
interface=$1 headquarters=$2 first=$3 first_router=$4 second=$5 second_router=$6
lost() {
	ping -q -c 10 -i 0.05 -W 1 -I "$1" "$headquarters" 2>/dev/null | sed -n 's/.*, \([0-9.]*\)% packet loss.*/\1/p'
}
used=
while [ -e "/sys/class/net/$interface" ]; do
	lost=$(lost "$first")
	lost=${lost%.*}
	if [ "${lost:-100}" -le 25 ]; then want=$first router=$first_router; else want=$second router=$second_router; fi
	if [ "$want" != "$used" ]; then
		ip route replace "$headquarters" via "$router" dev "$want"
		used=$want
	fi
	sleep 0.5
done
