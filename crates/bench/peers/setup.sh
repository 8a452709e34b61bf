#!/bin/sh
# Makes a Python environment with the pinned peers that the benchmarks compare against.
# usage: setup.sh DIR      (the interpreter is $PYTHON, or python3)
set -eu
if [ $# -ne 1 ]; then
    echo "usage: $0 DIR" >&2
    exit 2
fi
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
"${PYTHON:-python3}" -m venv "$1"
"$1/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt"
for peer in arcticdb delta-rs duckdb clickhouse; do
    "$1/bin/python" -B "$here/peer.py" "$peer" --version
done
