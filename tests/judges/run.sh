#!/bin/sh
# Kills writers, many times, and lets requests of others fail; has what they leave judged by pyarrow
# and python deltalake.
# usage: run.sh [DIR]      (works in DIR, which must be empty or absent; default: a new one)
# TIDELOG_KILL_ROUNDS: how many kills (default 200). TIDELOG_JUDGES_VENV: an environment that
# setup.sh made, to be used again; made in DIR otherwise.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
directory=${1:-$(mktemp -d)}
mkdir -p "$directory"
directory=$(CDPATH='' cd -- "$directory" && pwd)
if [ -n "$(ls -A "$directory")" ]; then
    echo "$0: $directory is not empty" >&2
    exit 2
fi
venv=${TIDELOG_JUDGES_VENV:-$directory/venv}
if [ ! -x "$venv/bin/python" ]; then
    "$here/setup.sh" "$venv"
fi
stores=$directory/stores
TIDELOG_KILL_ROUNDS=${TIDELOG_KILL_ROUNDS:-200}
export TIDELOG_KILL_ROUNDS
echo "killing $TIDELOG_KILL_ROUNDS writers in $stores"
(
    cd "$here/../.."
    TIDELOG_KILL_DIR=$stores cargo test --quiet --workspace --locked --test integration -- \
        --ignored --exact --nocapture kill::a_killed_writer_leaves_stores_for_other_judges
    echo "writing under random faults in $stores"
    TIDELOG_FAULT_DIR=$stores cargo test --quiet --workspace --locked --test integration -- \
        --ignored --exact faults::random::random_faults_leave_stores_for_other_judges
)
"$venv/bin/python" -B "$here/judge.py" "$stores"
# A judge that cannot fail proves nothing: one flipped bit in each data file must be noticed. (In
# each, because a killed writer also leaves files that no commit names.)
mkdir "$directory/damaged"
cp -R "$stores/store-000" "$directory/damaged/store-000"
"$venv/bin/python" -B - "$directory/damaged" <<'EOF'
import pathlib, sys
for path in pathlib.Path(sys.argv[1]).glob("store-*/store/series/**/*.parquet"):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
EOF
if "$venv/bin/python" -B "$here/judge.py" "$directory/damaged" >/dev/null 2>&1; then
    echo "$0: the judge did not notice damaged files" >&2
    exit 1
fi
echo "judged, and a damaged copy was refused"
