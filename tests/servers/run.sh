#!/usr/bin/env bash
# Lets eight processes append to one series on servers that are not ours: moto (S3) from PyPI, made
# atomic, and Azurite (Azure) from npm. Both listen on free loopback ports and are ended by their
# process ids. usage: run.sh [DIR]   (where the servers are installed, and found again; default: a
# new one that is removed)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
packages=${1:-$work/packages}
pids=()
end() {
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap end EXIT

die() {
    echo "$0: $1" >&2
    exit 1
}

# race NAME URL: the test prints what it counted, and fails if it did not run.
race() {
    (
        cd "$here/.."
        # The whole workspace, as other crates would be built with other features than the tests'.
        TIDELOG_TEST_STORE=$2 cargo test --quiet --locked --workspace --test integration -- \
            --exact --nocapture processes::eight_processes_append_to_a_series_in_a_bucket
    ) | tee "$work/race.log"
    grep -q '1 passed' "$work/race.log" || die "the test did not run on $1"
    echo "$1: passed"
}

mkdir -p "$packages"
if [ ! -x "$packages/venv/bin/python" ]; then
    "${PYTHON:-python3}" -m venv "$packages/venv"
    "$packages/venv/bin/pip" install --quiet --disable-pip-version-check \
        -r "$here/requirements.txt"
fi
if [ ! -x "$packages/node_modules/.bin/azurite-blob" ]; then
    npm install --prefix "$packages" --no-fund --no-audit --loglevel=error "azurite@3.35.0"
fi

"$packages/venv/bin/python" -B "$here/moto_atomic.py" "$work/moto.port" race >"$work/moto.log" 2>&1 &
pids+=($!)
for _ in $(seq 150); do
    [ -e "$work/moto.port" ] && break
    kill -0 "${pids[0]}" 2>/dev/null || break
    sleep 0.2
done
[ -e "$work/moto.port" ] || { cat "$work/moto.log" >&2; die "moto does not start"; }
AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test \
    race moto "s3://race?endpoint=http://127.0.0.1:$(cat "$work/moto.port")"

port=$("${PYTHON:-python3}" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
(cd "$work" && exec "$packages/node_modules/.bin/azurite-blob" --blobHost 127.0.0.1 \
    --blobPort "$port" --inMemoryPersistence --silent --disableTelemetry --skipApiVersionCheck) >"$work/azurite.log" 2>&1 &
pids+=($!)
if ! "${PYTHON:-python3}" -B "$here/azurite_container.py" "$port" race; then
    cat "$work/azurite.log" >&2
    die "Azurite does not start"
fi
AZURE_STORAGE_ACCOUNT_NAME=devstoreaccount1 \
    AZURE_STORAGE_ACCOUNT_KEY='Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==' \
    race Azurite "az://race?endpoint=http://127.0.0.1:$port/devstoreaccount1"
