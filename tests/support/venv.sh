#!/bin/sh
# Make a virtual environment in which the checkout runs, or add what it lacks: venv.sh PYTHON DIRECTORY REQUIREMENTS...
# It keeps a copy of each file of requirements that is installed, and is made anew when one of them has changed.
set -eu
python=$1
directory=$2
shift 2
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "wgpy needs Python 3.11 or later; '$python' is $("$python" --version 2>&1). Try: make PYTHON=python3.12 test" >&2
    exit 1
fi
for file in "$directory"/requirements*.txt; do
    cmp -s "$file" "${file##*/}" || rm -f "$directory/ready"
done
if [ ! -e "$directory/ready" ]; then
    echo "==> making $directory with $("$python" --version)"
    if ! "$python" -m venv --clear "$directory"; then
        echo "'$python' cannot make virtual environments: on Debian, apt-get install python3-venv" >&2
        exit 1
    fi
    # An older pip compares each file that the index has with each tag of the platform, which takes it half of its time.
    "$directory/bin/pip" install --quiet --disable-pip-version-check --no-compile pip==26.3
    # The checkout itself, in place.
    pwd >"$("$directory/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/wgpy.pth"
    touch "$directory/ready"
fi
lacking=
for file; do
    [ -e "$directory/$file" ] || lacking="$lacking $file"
done
[ -n "$lacking" ] || exit 0
echo "==> installing$lacking in $directory"
# All files at once, because pip takes a while to start. Most of what is installed is never imported.
"$directory/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-compile --only-binary :all: \
    $(printf ' -r %s' $lacking)
cp $lacking "$directory/"
