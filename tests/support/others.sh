#!/bin/sh
# Run the tests that need no root on the other interpreters found: others.sh OWN VERSION...
set -eu
own=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
shift
for version; do
    [ "$version" != "$own" ] || continue
    for python in "$(command -v "python$version" || true)" "$HOME"/.pyenv/versions/"$version".*/bin/python; do
        [ -x "$python" ] && "$python" -c 'import venv, ensurepip' 2>/dev/null || continue
        venv=.venv-$version
        [ "$venv/ready" -nt requirements-dev.txt ] || tests/support/venv.sh "$python" "$venv"
        echo "==> tests without root on $("$venv/bin/python" --version)"
        "$venv/bin/python" -m pytest -q -m "not root"
        break
    done
done
