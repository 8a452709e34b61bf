#!/bin/sh
# Makes a Python environment for the judges of stores: nothing of ours is in it.
# usage: setup.sh DIR      (the interpreter is $PYTHON, or python3)
set -eu
if [ $# -ne 1 ]; then
    echo "usage: $0 DIR" >&2
    exit 2
fi
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
"${PYTHON:-python3}" -m venv "$1"
"$1/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt"
"$1/bin/python" -c 'import deltalake, pyarrow, xxhash; print("deltalake", deltalake.__version__, "pyarrow", pyarrow.__version__, "xxhash", xxhash.VERSION)'
