#!/bin/sh
# The programs that the tests and the demo run besides Python: install Debian's packages of those that are missing.
set -eu
missing=
need() { # PROGRAM PACKAGE
    PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || missing="$missing $2"
}
need ip iproute2
need ping iputils-ping
need iperf3 iperf3
need wg wireguard-tools
need wireguard-go wireguard-go
need nft nftables
need iptables iptables
need qemu-system-x86_64 qemu-system-x86
need busybox busybox-static
need openvpn openvpn
need openssl openssl
need sysctl procps
need tcpdump tcpdump
need curl curl
need tshark tshark
need systemd-analyze systemd
need groff groff
need zbarimg zbar-tools
need zsh zsh
need fish fish
need pg_ctlcluster postgresql
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "==> installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    # shellcheck disable=SC2086 # several packages
    apt-get install -qq -y --no-install-recommends $missing >/dev/null
else
    echo "==> these are missing; what needs them is skipped:$missing (as root on Debian they are installed)" >&2
fi
