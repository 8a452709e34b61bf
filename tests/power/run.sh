#!/bin/sh
# Cuts the power of a file system under writers, many times, and judges what is left: an ext4 image on a
# loop device, shut down by its own call without writing back. Then the same with syncs that do nothing,
# which must be noticed. Last, a disk that is full for a while.
# usage: run.sh [CYCLES]      (default 40; needs root and loop devices, says so and ends well without)
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cycles=${1:-40}
skip() {
    echo "skipped: $1"
    exit 0
}
[ "$(id -u)" -eq 0 ] || skip 'only root can mount'
[ -e /dev/loop-control ] || skip 'no loop devices'
for tool in losetup mkfs.ext4 python3; do
    command -v "$tool" >/dev/null || skip "no $tool"
done
cd "$here/../.."
binary=$(cargo test --workspace --locked --test integration --no-run --message-format=json 2>/dev/null |
    python3 -c 'import json, sys
for line in sys.stdin:
    built = json.loads(line)
    if built.get("executable"):
        print(built["executable"])')
python3 -B "$here/cut.py" "$binary" "$cycles"
if said=$(python3 -B "$here/cut.py" "$binary" "$cycles" --forget 2>&1); then
    printf '%s\n' "$said"
    case $said in skipped:*) exit 0 ;; esac
    echo "$0: syncs that do nothing were not noticed" >&2
    exit 1
fi
printf '%s\n' "$said" | tail -1
echo 'judged, and syncs that do nothing were noticed'
scratch=$(mktemp -d)
trap 'umount "$scratch/disk" 2>/dev/null; rm -rf "$scratch"' EXIT
mkdir "$scratch/disk"
truncate -s 48M "$scratch/image"
mkfs.ext4 -q "$scratch/image"
mount -o loop "$scratch/image" "$scratch/disk"
if ! TIDELOG_FULL_DISK="$scratch/disk" "$binary" --ignored --exact --nocapture \
    owner::a_file_system_that_is_full_for_a_while_loses_nothing > "$scratch/said" 2>&1; then
    cat "$scratch/said" >&2
    exit 1
fi
grep 'appends kept' "$scratch/said"
