#!/usr/bin/env bash
# Installs the Debian packages that the tests talk to, where they are missing and we may:
#     tools/debian.sh PROGRAM=PACKAGE… LIBRARY.so.N=PACKAGE…
# Whoever may not install gets the command to run; the tests that need the program then skip and name it.
set -uo pipefail
PATH="$PATH:/usr/sbin:/sbin" # where Debian puts servers, not always on a user's path

missing=()
for pair in "$@"; do
    case "${pair%%=*}" in
    *.so.*) ldconfig -p | grep -F "${pair%%=*} " >/dev/null || missing+=("${pair#*=}") ;;
    *) command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}") ;;
    esac
done
[ "${#missing[@]}" -eq 0 ] && exit 0

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    printf 'installing the Debian packages %s\n' "${missing[*]}" >&2
    if apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; then
        exit 0
    fi
fi
printf 'Tests that need these will skip; to run them too: sudo apt-get install -y %s\n' "${missing[*]}" >&2
