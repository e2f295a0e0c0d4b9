#!/bin/sh
# `make install` and `make uninstall`: install.sh install|uninstall DIRECTORY PREFIX PYTHON, from the checkout.
#
# In DIRECTORY (DESTDIR and PREFIX), lib/wgpy is a link to one of two environments. A new version is built in the other one,
# and the link is replaced by a rename when the build is complete: a build that fails changes nothing. The old environment
# stays until the next upgrade, because daemons that were started from it still import modules from there.
set -eu
umask 022
action=$1 directory=$2 prefix=$3 python=$4
library=$directory/lib/wgpy

targets() { # TEXT FILE: each text that wgpy.cli.documents writes, and its path
    cat <<EOT
man share/man/man8/wgpy.8
conf share/man/man5/wgpy.conf.5
bash share/bash-completion/completions/wgpy
zsh share/zsh/site-functions/_wgpy
fish share/fish/vendor_completions.d/wgpy.fish
EOT
}

uninstall() {
    rm -rf "$library" "$library-1" "$library-2"
    rm -f "$directory/bin/wgpy"
    for unit in systemd/*.service; do rm -f "$directory/lib/systemd/system/${unit#*/}"; done
    targets | while read -r _ file; do rm -f "$directory/$file"; done
}

build() { # NEW: make the environment, and in NEW/files all files that are installed elsewhere
    "$python" -m venv --clear "$1"
    "$1/bin/pip" install --quiet --disable-pip-version-check '.[metrics,qr,gateway]'
    mkdir -p "$1/files/bin" "$1/files/lib/systemd/system"
    printf '%s\n' '#!/bin/sh' \
        'exec "$(readlink -f "$(dirname "$(readlink -f "$0")")/../lib/wgpy")/bin/python" -I -m wgpy "$@"' \
        >"$1/files/bin/wgpy"
    chmod 755 "$1/files/bin/wgpy"
    for unit in systemd/*.service; do
        sed "s,/usr/local/,$prefix/," "$unit" >"$1/files/lib/systemd/system/${unit#*/}"
    done
    targets | while read -r text file; do
        mkdir -p "$1/files/${file%/*}"
        "$1/bin/python" -I -m wgpy.cli.documents "$text" >"$1/files/$file" || exit
    done
    "$1/bin/python" -I -m wgpy --version >/dev/null
}

swap() { # NEW
    (cd "$1/files" && find . -type f) | while read -r file; do
        mkdir -p "$directory/${file%/*}"
        mv -f "$1/files/$file" "$directory/$file" || exit
    done
    rm -rf "$1/files"
    if [ -d "$library" ] && [ ! -L "$library" ]; then mv "$library" "$library-2"; fi # an installation from before there were two environments
    ln -sfn "${1##*/}" "$library.new"
    mv -fT "$library.new" "$library"
}

case $action in
uninstall) uninstall ;;
install)
    new=$library-1 before=
    [ ! -e "$library" ] || before=yes
    [ "$(readlink "$library" || true)" != wgpy-1 ] || new=$library-2
    trap '[ $? = 0 ] || rm -rf "$new"' EXIT
    trap 'exit 130' INT TERM
    echo "==> building $new"
    build "$new"
    swap "$new"
    echo "installed $("$directory/bin/wgpy" --version) as $prefix/bin/wgpy; to see what works on this machine: sudo wgpy doctor"
    if [ "$directory" = "$prefix" ] && [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null &&
        ! setpriv --reuid 65534 --clear-groups "$directory/bin/wgpy" --version >/dev/null 2>&1; then
        echo "warning: only root can run it: $(readlink -f "$library/bin/python") or $directory is closed to other users;" \
            "give another Python, as in: make install PYTHON=/usr/bin/python3"
    fi
    [ -z "$before" ] || echo "interfaces that are up keep running the old version until you restart them:" \
        "systemctl daemon-reload; systemctl restart wgpy@NAME (or wgpy down NAME; wgpy up NAME)"
    ;;
esac
