#!/bin/sh
# A CI job that talks to a private network: no root, no interface on the runner, nothing left behind.
# The file's content comes from the CI's secret store: WG_CONF="$(cat wg0.conf)" ci_job.sh COMMAND ...
set -eu

file=$(mktemp)
trap 'rm -f "$file"' EXIT
printf '%s\n' "${WG_CONF:?set it to what wg0.conf says}" >"$file" # mktemp made it for us alone

wgpy check "$file"
# --wait: fail here, and not in the middle of the job, when the other side does not answer.
wgpy exec --wait 10 "$file" -- "$@"
