#!/bin/sh
# The programs that the benchmarks compare with, besides Debian's wireguard-go: install those that are missing, where the
# toolchains are. The benchmarks leave out what is not there.
set -eu
PATH=$PATH:/usr/local/go/bin:$HOME/.cargo/bin
if [ ! -x "$HOME/go/bin/wireguard" ] && command -v go >/dev/null; then
    echo "==> installing the current wireguard-go"
    GOPATH=$HOME/go GOBIN= go install golang.zx2c4.com/wireguard@latest || echo "==> that failed; going on without it" >&2
fi
# The client with gVisor's stack, by the module's own sums. Go builds only what has changed.
if command -v go >/dev/null; then
    echo "==> building wireguard-go's client with gVisor's stack"
    (cd "$(dirname "$0")/gvisor" && GOPATH=$HOME/go go build -o "$HOME/go/bin/wgpy-benchmarks-gvisor" .) ||
        echo "==> that failed; going on without it" >&2
fi
for program in boringtun-cli:boringtun-cli gotatun:gotatun-cli; do
    if [ ! -x "$HOME/.cargo/bin/${program%:*}" ] && command -v cargo >/dev/null; then
        echo "==> installing ${program#*:}"
        cargo install --quiet --root "$HOME/.cargo" "${program#*:}" || echo "==> that failed; going on without it" >&2
    fi
done
