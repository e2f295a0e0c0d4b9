#!/bin/sh
# A CI job that uses a private network: without root, without an interface on the runner, and nothing is left behind.
# The file's content comes from the CI's secret store: WG_CONF="$(cat wg0.conf)" ci_job.sh COMMAND ...
set -eu

file=$(mktemp)
trap 'rm -f "$file"' EXIT
printf '%s\n' "${WG_CONF:?set it to the content of wg0.conf}" >"$file" # only we can read what mktemp made

wgpy check "$file"
# --wait: if the other side does not answer, fail here and not in the middle of the job.
wgpy exec --wait 10 "$file" -- "$@"
