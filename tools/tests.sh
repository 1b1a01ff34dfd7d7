#!/usr/bin/env bash
# Runs the web app's tests, then Python's with the arguments given, several at a time; fails when either fails.
# `-n0` among the arguments runs them one after another. pytest's closing line is the last that it prints.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0
if [ -f web/package.json ]; then
    (cd web && PATH="$PWD/../.venv/bin:$PATH" npm run --silent test) || failed=1
    [ "$failed" -eq 0 ] || printf 'FAILED: the web app'"'"'s tests, see above\n'
fi
# Where the environment forbids it, each of some hundred processes would compile all that it imports, for a second.
export PYTHONDONTWRITEBYTECODE=
# DuckDB's binding complains on stderr about what is alive when the interpreter ends: leave without that end.
.venv/bin/python -c 'import os, sys, pytest; code = pytest.main(); sys.stdout.flush(); os._exit(code)' \
    -n auto --dist worksteal "$@" || failed=$?
exit "$failed"
