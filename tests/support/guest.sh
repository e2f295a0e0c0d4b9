#!/bin/busybox sh
# The virtual machine's only process of its own: it runs what comes over the console, one script at a time.
# A line of it is a script in base64; the answer is a line with its output in base64 and its exit status.
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
ln -sf /proc/self/fd /dev/fd
ln -sf /proc/self/fd/0 /dev/stdin
while read -r module; do insmod "/bin/${module##*/}"; done </modules
ip link set lo up
until [ -e /dev/hvc0 ]; do :; done
exec 3<>/dev/hvc0
stty raw -echo <&3
echo ready >&3
while read -r script <&3; do
    echo "$script" | base64 -d >/tmp/script
    sh /tmp/script </dev/null >/tmp/output 2>&1
    status=$?
    echo "$(base64 -w 0 /tmp/output) $status" >&3
done
poweroff -f
