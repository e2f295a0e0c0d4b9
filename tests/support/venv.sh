#!/bin/sh
# Make a virtual environment with the pinned packages and wgpy itself: venv.sh PYTHON DIRECTORY
set -eu
python=$1
directory=$2
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "wgpy needs Python 3.11 or later; '$python' is $("$python" --version 2>&1). Try: make PYTHON=python3.12 test" >&2
    exit 1
fi
echo "==> setting up $directory with $("$python" --version)"
if ! "$python" -m venv --clear "$directory"; then
    echo "'$python' cannot make virtual environments: on Debian, apt-get install python3-venv" >&2
    exit 1
fi
"$directory/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: -r requirements-dev.txt
# The checkout itself, in place.
pwd >"$("$directory/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/wgpy.pth"
touch "$directory/ready"
