#!/bin/sh
# Install the Debian packages of the programs that a target runs, those that are missing: packages.sh TARGET
set -eu
demo="ip:iproute2 ping:iputils-ping iperf3:iperf3 wg:wireguard-tools"
bench="$demo wireguard-go:wireguard-go openvpn:openvpn openssl:openssl"
labs="$bench nft:nftables sysctl:procps tcpdump:tcpdump curl:curl"
tests="$labs iptables:iptables tshark:tshark groff:groff zbarimg:zbar-tools zsh:zsh fish:fish pg_ctlcluster:postgresql
    chromium:chromium chromedriver:chromium-driver
    slapd:slapd ldapmodify:ldap-utils samba:samba-ad-dc samba-tool:samba-ad-provision markdown_py:python3-markdown
    qemu-system-x86_64:qemu-system-x86 busybox:busybox-static
    systemd-analyze:systemd systemd-nspawn:systemd-container dbus-daemon:dbus"
case $1 in
demo) programs=$demo ;;
bench) programs=$bench ;;
labs) programs=$labs ;;
*) programs=$tests ;;
esac

missing=
for program in $programs; do # PROGRAM:PACKAGE
    PATH=$PATH:/usr/sbin:/sbin command -v "${program%:*}" >/dev/null || missing="$missing ${program#*:}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "==> installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    # The tests start servers of their own; those of the packages are not wanted here.
    policy=/usr/sbin/policy-rc.d
    [ -e "$policy" ] || {
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    }
    apt-get update -qq
    # shellcheck disable=SC2086 # several packages
    apt-get install -qq -y --no-install-recommends $missing >/dev/null
else
    echo "==> these are missing; what needs them is skipped:$missing (as root on Debian they are installed)" >&2
fi
