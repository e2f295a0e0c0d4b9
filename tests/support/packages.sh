#!/bin/sh
# Install the Debian packages of the programs that a target runs, those that are missing: packages.sh TARGET
set -eu
demo="ip:iproute2 ping:iputils-ping iperf3:iperf3 wg:wireguard-tools"
bench="$demo wireguard-go:wireguard-go openvpn:openvpn openssl:openssl"
labs="$bench nft:nftables sysctl:procps tcpdump:tcpdump curl:curl"
tests="$labs iptables:iptables tshark:tshark groff:groff zbarimg:zbar-tools zsh:zsh fish:fish pg_ctlcluster:postgresql
    chromium:chromium chromedriver:chromium-driver
    slapd:slapd ldapmodify:ldap-utils jq:jq samba:samba-ad-dc samba-tool:samba-ad-provision markdown_py:python3-markdown
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
if [ -z "$missing" ]; then
    :
elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
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

# A second provider of OpenID Connect, where there is a compiler for it, because Debian has no package of dex. It has no tags
# that Go would take, so this is the commit of its version 2.41.1, whose SQLite needs a C compiler, too.
build_dex() {
    cd "$1" && export GOFLAGS=-mod=mod && "$go" mod init dex &&
        "$go" get github.com/dexidp/dex/cmd/dex@v0.0.0-20240807174518-43956db7fd75 github.com/dexidp/dex/api/v2@v2.2.0 &&
        "$go" build -o dex github.com/dexidp/dex/cmd/dex && install -m 755 dex /usr/local/bin/dex
}
go=$(command -v go || echo /usr/local/go/bin/go)
if [ "$1" = test ] && [ "$(id -u)" = 0 ] && [ -x "$go" ] && ! command -v dex >/dev/null; then
    echo "==> building dex, which takes some minutes once"
    directory=$(mktemp -d)
    (build_dex "$directory") >"$directory/log" 2>&1 ||
        { tail -5 "$directory/log" >&2; echo "==> dex was not built, and what needs it is skipped" >&2; }
    rm -rf "$directory"
fi
