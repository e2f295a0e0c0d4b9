#!/bin/sh
# Boot this system a second time, under systemd, in a container: machine.sh DIRECTORY OPTION... (of systemd-nspawn)
# What it writes is kept in memory. DIRECTORY/files is laid over it first. To be run in a mount namespace of its own.
set -eu
directory=$1
shift
mount --make-rprivate /
mkdir "$directory/memory"
mount -t tmpfs -o mode=755 memory "$directory/memory"
cd "$directory/memory"
mkdir upper work root
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root
cp -R "$directory/files/." root/
rm -f root/etc/resolv.conf root/etc/machine-id
ln -s /run/systemd/resolve/stub-resolv.conf root/etc/resolv.conf
touch root/etc/machine-id
# systemd from 258 on knows cgroups of version 2 only, and in a chroot there may be none.
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
systemd-nspawn --quiet --boot --directory=root --private-network --resolv-conf=off --register=no --keep-unit \
    --capability=all --bind=/dev/net/tun --property='DeviceAllow=/dev/net/tun rw' --console=pipe "$@" || true
# It leaves its cgroups behind.
cd "/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)"
for part in payload supervisor; do find "$part" -depth -type d -exec rmdir {} +; done
