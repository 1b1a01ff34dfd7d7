#!/usr/bin/env bash
# Makes .venv and installs into it: `tools/venv.sh create`, `tools/venv.sh install [GROUP…]` (groups of pyproject.toml),
# in the versions of tools/constraints.txt, which passed together; `tools/venv.sh lock` takes the newest ones into it.
# `tools/venv.sh peer FOLDER` makes FOLDER/.venv of FOLDER/requirements.txt, for programs that cannot share ours.
# One at a time in a checkout; uv (from PyPI) does the installing, pip where uv cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."
export UV_SYSTEM_CERTS="${UV_SYSTEM_CERTS:-true}" # behind a proxy of the company its certificate is in the system's store
export UV_LINK_MODE="${UV_LINK_MODE:-copy}"       # a cache on another file system is no reason for a warning
export PIP_DISABLE_PIP_VERSION_CHECK=1

exec 9<Makefile
command -v flock >/dev/null && flock 9

say() { printf '%s\n' "$*" >&2; }

# The first Python of these that is new enough.
python() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    say "Shopfloor needs Python 3.11 or newer and found none."
    say "Install it (Debian and Ubuntu: apt-get install python3 python3-venv), or name one: make PYTHON=/path/to/python3 …"
    exit 2
}

# Debian splits what makes virtual environments off into a package of its own.
need_ensurepip() {
    "$1" -c 'import ensurepip' 2>/dev/null && return
    local package
    package="python$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        say "installing the Debian package $package"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >&2
        return
    fi
    say "This Python cannot make virtual environments. Run this once, then the same make command again:"
    say "    sudo apt-get update && sudo apt-get install -y $package"
    exit 2
}

create() {
    [ -x .venv/bin/python ] && .venv/bin/python -c 'import pip' 2>/dev/null && return
    local chosen
    chosen=$(python)
    need_ensurepip "$chosen"
    "$chosen" -m venv .venv
}

install() {
    local options=(-c tools/constraints.txt) group
    say "installing Shopfloor and what it needs into .venv ($*)"
    for group in "$@"; do options+=(--group "$group"); done
    [ -x .venv/bin/uv ] || .venv/bin/python -m pip install -q uv || true
    if [ -x .venv/bin/uv ] && .venv/bin/uv pip install -q --python .venv/bin/python -e . "${options[@]}"; then
        return
    fi
    say "uv could not install; trying pip, which takes longer"
    .venv/bin/python -m pip install -q "pip>=25.1" # the first that knows dependency groups
    .venv/bin/python -m pip install -q -e . "${options[@]}"
}

peer() {
    if [ -x .venv/bin/uv ] && .venv/bin/uv venv -q --clear --python .venv/bin/python "$1/.venv" &&
        .venv/bin/uv pip install -q --python "$1/.venv/bin/python" -r "$1/requirements.txt"; then
        return
    fi
    say "uv could not install; trying pip, which takes longer"
    .venv/bin/python -m venv --clear "$1/.venv"
    "$1/.venv/bin/python" -m pip install -q -r "$1/requirements.txt"
}

lock() {
    [ -x .venv/bin/uv ] || .venv/bin/python -m pip install -q uv
    .venv/bin/uv pip compile -q --universal --upgrade --python-version 3.11 --no-header --no-annotate \
        --group web --group test --group check pyproject.toml -o tools/constraints.txt
}

"$@"
