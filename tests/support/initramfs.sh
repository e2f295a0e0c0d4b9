#!/bin/sh
# Make the file system of the virtual machine that lends the tests its kernel's WireGuard:
#     initramfs.sh KERNEL OUTPUT
# KERNEL is where Debian's package of a kernel was unpacked. The programs and their libraries are this system's own.
set -eu
kernel=$1
output=$2
PATH=$PATH:/usr/sbin:/sbin
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

mkdir -p "$root/bin" "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/run/netns"
for program in busybox ip wg ping iperf3 ss nft; do
    path=$(command -v "$program")
    cp "$path" "$root/bin/"
    # glibc opens libgcc_s when a thread is cancelled, as those of iperf3 are since 3.16.
    for library in $(ldd "$path" 2>/dev/null | grep -o '/[^ ]*') $(ldconfig -p | grep -o '/[^ ]*/libgcc_s.so.1'); do
        mkdir -p "$root${library%/*}"
        cp -L "$library" "$root$library"
    done
done

# Since Debian 13 they are below usr and may be compressed.
[ -e "$kernel/lib" ] || ln -s usr/lib "$kernel/lib"
find "$kernel/lib/" -name '*.ko.xz' -exec busybox unxz {} +
modules=$(echo "$kernel"/lib/modules/*)
busybox depmod -b "$kernel" "${modules##*/}"
for module in virtio_pci virtio_console virtio_net wireguard; do
    # "kernel/a/b.ko: kernel/c/d.ko ...": what to load, last first
    grep "/$module.ko:" "$modules/modules.dep" | tr -d : | tr ' ' '\n' | sed '1!G;h;$!d'
done | awk '!seen[$0]++' >"$root/modules"
while read -r module; do cp "$modules/$module" "$root/bin/"; done <"$root/modules"

# Those of nftables and of conntrack, of which the kernel loads what a table needs.
place=$root/lib/modules/${modules##*/}
grep -E '/(nft_|nf_|nfnetlink)[^/]*\.ko:' "$modules/modules.dep" | tr -d : | tr ' ' '\n' | sort -u |
    while read -r module; do
        mkdir -p "$place/${module%/*}"
        cp "$modules/$module" "$place/$module"
    done
busybox depmod -b "$root" "${modules##*/}"
mkdir "$root/sbin"
ln -s /bin/busybox "$root/sbin/modprobe"

cp "${0%/*}/guest.sh" "$root/init"
(cd "$root" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1) >"$output.$$"
mv "$output.$$" "$output"
