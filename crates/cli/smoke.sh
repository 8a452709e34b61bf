#!/usr/bin/env bash
# Runs every command of the program as a user would, with good and bad input, in a temporary
# directory and in a bucket of the test server, and checks outputs and exit codes.
# Usage: crates/cli/smoke.sh [PROGRAM [SERVER]] (default: target/debug/tidelog and
# target/debug/s3-server of tidelog-testkit, which must have been built).
set -uo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
program=$(realpath "${1:-$root/target/debug/tidelog}")
server=$(realpath "${2:-$root/target/debug/s3-server}")
weather=$root/examples/data/nyc-weather-2013.csv
work=$(mktemp -d)
server_pid=
end() {
    [ -z "$server_pid" ] || kill "$server_pid"
    rm -rf "$work"
}
trap end EXIT
cd "$work" || exit 1
for name in $(compgen -v TIDELOG_); do unset "$name"; done
unset RUST_LOG
checks=0
failures=0

fail() {
    failures=$((failures + 1))
    printf 'FAILED: %s\n' "$1" >&2
    sed 's/^/    stdout: /' out >&2
    sed 's/^/    stderr: /' err >&2
}

# expect CODE ARGS…: runs the program and checks its exit code; leaves its output in out and err.
expect() {
    local code=$1
    shift
    "$program" "$@" >out 2>err
    local found=$?
    checks=$((checks + 1))
    [ "$found" -eq "$code" ] || fail "tidelog $*: exit code $found, expected $code"
    if [ "$code" -ne 0 ] && [ "$code" -ne 2 ] && [ "$(wc -l <err)" -ne 1 ]; then
        fail "tidelog $*: an error is one line"
    fi
}

# has FILE TEXT: the file has the text. is FILE TEXT: the file is the text.
has() {
    checks=$((checks + 1))
    grep -qF -- "$2" "$1" || fail "$1 does not have: $2"
}
is() {
    checks=$((checks + 1))
    [ "$(cat "$1")" = "$2" ] || fail "$1 is not: $2"
}

# --- usage -------------------------------------------------------------------------------------
expect 0 --help
expect 0 --version
expect 2
expect 2 nonsense
expect 2 ls
has err '--store'
has err 'TIDELOG_STORE'
expect 2 --json ls
has err '"kind":"usage"'

# --- store and tree ----------------------------------------------------------------------------
expect 4 --store missing ls
has err 'init'
mkdir empty
expect 4 --store empty ls
checks=$((checks + 1))
[ -z "$(ls -A empty)" ] || fail 'looking for a store must not write'
expect 3 --store ftp://bucket ls
expect 3 --store 's3://bucket?secret_access_key=canary' ls
has err 'environment'
expect 3 --store s3://id:canary@bucket ls
export TIDELOG_STORE=$work/store
expect 0 init
expect 5 init
expect 0 mkdir /a/b
expect 5 mkdir /a/b
expect 3 mkdir a
expect 3 mkdir /a/../b
expect 0 ls
is out '/a/'
expect 0 ls /a/
is out '/a/b/'
expect 0 ls '/**'
has out '/a/b/'
expect 4 ls /missing
expect 0 --json ls
has out '"path":"/a"'
expect 0 describe /a
has out 'directory'
expect 4 describe /missing
expect 0 mv /a/b /c
expect 4 mv /missing /d
expect 5 mv /a /c
expect 0 rm /c
expect 4 rm /c
expect 0 mkdir /x/y
expect 3 rm /x
expect 0 rm -r /x
expect 0 log
has out 'rename'
expect 0 stats
has out 'directories'
expect 0 --json stats
has out '"series":0'

# --- append --------------------------------------------------------------------------------------
expect 0 series create /weather/nyc.series --time-column time_hour --key origin --dedup
expect 5 series create /weather/nyc.series
expect 2 series create /w --unit weeks
expect 3 series query /weather/nyc.series
expect 0 series append /weather/nyc.series "$weather"
has out 'v1, 26,115 rows'
expect 0 describe /weather/nyc.series
has out 'Timestamp'
expect 0 --json describe /weather/nyc.series
has out '"rows":26115'
expect 0 ls -l '/**'
has out '26,115'

printf 'time,v\n2024-01-01T00:00:00Z,1\n2024-01-01 01:00,NA\n' >one.csv
printf 'time,v\n2024-01-02,3\n2024-01-01T00:30:00+00:00,2\n' >two.csv
printf 'time,v\n2024-01-03,4\n2024-01-04,x\n' >word.csv
printf 'time,v\n2024-01-03,4\n2024-01-04\n' >ragged.csv
printf 'time,v\n2024-01-03,\xff\n' >latin.csv
printf 'time,v\nNA,4\n' >null.csv
printf 'time,v\n1500-01-01,4\n' >early.csv
printf 'time,v\n' >norows.csv
printf 'time,v,w\n2024-01-03,4,5\n' >extra.csv
printf 'v\n4\n' >notime.csv
: >nothing.csv
expect 0 series append /s one.csv two.csv norows.csv
has out 'one.csv: v1, 2 rows'
has out 'two.csv: v2, 2 rows'
has out 'norows.csv: no rows'
expect 0 --json log
has out '"version":2'
for bad in word:3 ragged:3 latin:2 null:2 early:2 extra:1; do
    expect 3 series append /s "${bad%:*}.csv"
    has err "${bad%:*}.csv: line ${bad#*:}: "
done
expect 3 series append /s nothing.csv
expect 3 series append /s notime.csv
expect 3 series append /t notime.csv
has err 'time column'
expect 4 series append /s missing.csv
expect 2 series append /s one.txt
expect 3 series append /s/below one.csv
expect 3 series append /s one.csv --time-column v
expect 0 log /s
expect 3 series append /s one.csv word.csv two.csv
has out 'one.csv: v3'
has err '1 of 3 files are stored'
expect 3 --json series append /s one.csv extra.csv
has out '"version":4'
has err '"stored":1'
expect 0 --json log /s
has out '"version":4'
"$program" series append /s - <two.csv >out 2>err || fail 'append from standard input'
has out 'v5'
printf 'ts,v\n1700000000,1\n' >epoch.csv
expect 3 series append /epoch epoch.csv
expect 0 series append /epoch epoch.csv --unit s

# --- query ---------------------------------------------------------------------------------------
expect 0 series query /s --as-of v2 --format csv
is out 'time,v
2024-01-01T00:00:00Z,1.0
2024-01-01T00:30:00Z,2.0
2024-01-01T01:00:00Z,
2024-01-02T00:00:00Z,3.0'
expect 0 series query /s --as-of v1 --format json
is out '{"time":"2024-01-01T00:00:00Z","v":1.0}
{"time":"2024-01-01T01:00:00Z","v":null}'
expect 0 --json series query /s --as-of v1 --limit 1
is out '{"time":"2024-01-01T00:00:00Z","v":1.0}'
expect 0 series query /s --as-of v2 --from 2024-01-01 --to 2024-01-01 --where 'v > 1' --columns v --format csv
is out 'v
2.0'
expect 0 series query /s --as-of v2 --desc --limit 1 --columns time --format csv
is out 'time
2024-01-02T00:00:00Z'
expect 0 series query /s --as-of v2 --order-by v:desc --limit 1 --columns v --format csv
expect 0 series query /s --from -7d --to now --format csv
is out 'time,v'
expect 0 series latest /s --as-of v2 --format csv
is out 'time,v
2024-01-02T00:00:00Z,3.0'
expect 0 series latest /s --as-of v2 --by v --where 'v < 3' --to 2024-01-01 --columns v --format json
is out '{"v":1.0}
{"v":2.0}'
expect 0 --json series latest '/weather/*' --columns _path
is out '{"_path":"/weather/nyc.series"}'
expect 3 series latest /s --by nope
expect 4 series latest /missing
expect 0 series query '/weather/*' --limit 1
has out '_path'
expect 0 --memory 512MB --verbose series query /s --limit 1
has err 'planned'
expect 2 --memory lots ls
expect 3 series query /s --from 2024-01-02 --to 2024-01-01
expect 3 series query /s --from yesterday
expect 4 series query /s --as-of v99
expect 3 series query /s --columns nope
expect 3 series query /s --where 'v >'
expect 4 series query /missing
expect 4 series query '/missing*'

# --- output --------------------------------------------------------------------------------------
expect 0 series query /weather/nyc.series -o all.parquet
expect 0 series query /weather/nyc.series -o all.csv
checks=$((checks + 1))
[ "$(wc -l <all.csv)" -eq 26116 ] || fail 'all rows are written'
expect 0 series query /weather/nyc.series -o all.arrow
expect 0 series query /weather/nyc.series -o all.jsonl
expect 0 series query /weather/nyc.series --format table
checks=$((checks + 1))
[ "$(wc -l <out)" -eq 26119 ] || fail 'a table in a pipe has all rows'
expect 0 series append /again all.parquet --time-column time_hour
has out 'v1, 26,115 rows'
head -c 20000 all.parquet >cut.parquet
expect 3 series append /again cut.parquet
expect 3 series append /again one.csv --format parquet
expect 4 series query /s -o missing/all.csv
cp all.csv before.csv
expect 3 sql 'select [1] as list' -o all.csv
cmp -s all.csv before.csv || fail 'a failed query must leave the file as it was'
checks=$((checks + 1))
[ -z "$(find . -maxdepth 1 -name '.*.partial')" ] || fail 'a failed query must leave no half file'
if [ -e /dev/full ]; then
    for format in csv json parquet arrow table; do
        expect 9 series query /weather/nyc.series --format $format -o /dev/full
    done
fi
for format in csv json parquet arrow table; do
    "$program" series query /weather/nyc.series --format $format 2>err | head -c 10 >/dev/null
    status=${PIPESTATUS[0]}
    checks=$((checks + 1))
    { [ "$status" -eq 0 ] && [ ! -s err ]; } || fail "a closed pipe ends quietly ($format, $status)"
done

# --- SQL -----------------------------------------------------------------------------------------
expect 0 sql 'SELECT count(*) AS n FROM "/weather/nyc.series"' --format csv
is out 'n
26115'
expect 0 sql "SELECT count(*) AS n FROM series('/weather/*')" --json
is out '{"n":26115}'
expect 0 sql 'EXPLAIN SELECT * FROM "/weather/nyc.series"'
has out 'versions='
expect 0 sql "INSERT INTO \"/s\" (time, v) VALUES ('2024-02-01T00:00:00Z', 7)"
expect 0 sql 'SELECT max(version) AS v FROM tidelog.versions' --format csv
printf 'SELECT 42 AS x' >query.sql
"$program" sql - --format csv <query.sql >out 2>err || fail 'sql from standard input'
is out 'x
42'
expect 3 sql 'SELEC 1'
terms=$(printf '1+%.0s' {1..20000})
expect 10 sql "SELECT ${terms}1"

# --- compact -------------------------------------------------------------------------------------
for hour in 01 02 03; do
    expect 0 sql "INSERT INTO \"/s\" (time, v) VALUES ('2024-02-02T$hour:00:00Z', 8)"
done
expect 0 sql 'SELECT count(*) AS n FROM "/s"' --format csv
cp out rows-before
expect 0 compact --dry-run
has out '/s: '
has out 'would merge'
expect 0 compact /s
has out 'became 1 ('
expect 0 sql 'SELECT count(*) AS n FROM "/s"' --format csv
cmp -s out rows-before || fail 'compaction changed a count'
expect 0 --json compact /s
has out '"merges":[]'
expect 4 compact /none
expect 0 stats
has out 'for each byte kept'

# --- fsck ----------------------------------------------------------------------------------------
expect 0 fsck
has out 'nothing is damaged'
expect 0 fsck --deep
has out 'every byte'
expect 0 --json fsck
has out '"intact":true'
expect 4 --store missing fsck
has err 'init'
expect 4 --store empty fsck
cp -r store broken
# A file that is part of a series at its head: what compaction has replaced is not looked at any more.
expect 0 --json layout /s
file=broken/$(tr ',' '\n' <out | sed -n 's/^"object":"\(.*\)"$/\1/p' | head -1)
truncate -s -1 "$file"
: >broken/_oplog/_delta_log/00000000000000000001.json
expect 8 --store broken ls
expect 8 --store broken fsck
has out "${file#broken/}"
has out '00000000000000000001.json'
has out 'restore it from a backup'
has err 'damaged'
expect 8 --json --store broken fsck --deep
has out '"intact":false'
has out '"remedy":"restore it from a backup"'
has err '"kind":"corruption"'

# --- following -----------------------------------------------------------------------------------
# interrupted SECONDS ARGS…: runs the program, presses Ctrl-C, checks that it ends as interrupted.
interrupted() {
    timeout -s INT --preserve-status "$1" "$program" "${@:2}" >out 2>err
    local found=$?
    checks=$((checks + 1))
    [ "$found" -eq 130 ] || fail "tidelog ${*:2}: exit code $found, expected 130"
}
interrupted 2 log '/weather/*' --follow --since 0
has out '/weather/nyc.series  append v1, 26,115 rows'
interrupted 2 --json log /s --follow --since 0
has out '"path":"/s","rows":2'
(sleep 1 && "$program" series append /s one.csv >append.out 2>&1) &
interrupted 4 log --follow
wait
has out '/s  append v'
checks=$((checks + 1))
[ "$(wc -l <out)" -eq 1 ] || fail 'what was there before is not told'
expect 4 log --follow --since 99999
has err 'its newest is'
expect 3 log --follow /weather
expect 2 log --since 3
expect 2 log --follow --since -1

# --- modes ---------------------------------------------------------------------------------------
expect 0 --mode shared ls
expect 0 --mode exclusive ls
expect 0 --mode exclusive fsck
expect 2 --mode both ls
export TIDELOG_STORE=$work/alone TIDELOG_MODE=exclusive
expect 0 init
checks=$((checks + 1))
[ ! -e alone/_wal ] || fail 'a store is taken at the first write'
expect 0 series append /s one.csv two.csv
has out 'one.csv: v1, 2 rows, sync'
expect 0 --json series append /s one.csv
has out '"durability":"sync"'
expect 3 series append /s one.csv word.csv
has out 'one.csv: v4'
expect 0 --mode shared series append /s two.csv
has out 'two.csv: v5, 2 rows, committed'
expect 0 mkdir /a
expect 0 series create /a/t
expect 0 mv /a /b
expect 0 --mode shared rm -r /b
expect 0 sql "INSERT INTO \"/s\" (time, v) VALUES ('2024-02-01T00:00:00Z', 7)"
expect 0 --mode shared mkdir /c
expect 0 stats
expect 0 fsck --deep
expect 0 sql 'SELECT count(*) AS n FROM "/s"' --format csv
is out 'n
11'
expect 0 demo alone-demo
expect 0 --mode shared --store alone-demo mkdir /d

# hold STDIN ARGS…: a process that takes the store with two thousand files and waits for standard input;
# the caller holds the other end as descriptor 9.
hold() {
    rm -f fifo
    mkfifo fifo
    # shellcheck disable=SC2046
    "$program" "$@" series append /held $(yes one.csv | head -2000) - <fifo >held.out 2>held.err &
    holder=$!
    exec 9>fifo
    for _ in $(seq 300); do
        "$program" --mode shared "$@" mkdir /probe >out 2>err
        [ $? -eq 6 ] && return
        "$program" --mode shared "$@" rm /probe >out 2>err
        sleep 0.1
    done
    fail 'a writer takes the store'
}
expect 0 tiers
has out 'nobody'
expect 0 wal inspect
has out 'the end is clean'
has out '0 records are not committed yet'
expect 0 wal repair
has out 'nothing is damaged'
hold
# It says once a second how far it is.
for _ in $(seq 300); do
    "$program" sql 'SELECT appends FROM tidelog.tiers' --format csv 2>err | grep -q 2000 && break
    sleep 0.1
done
expect 0 tiers
has out "process $holder"
has out 'appends/sync'
expect 0 --json tiers
has out '"owner_state":"living"'
expect 0 sql 'SELECT tier, appends, owner FROM tidelog.tiers' --format csv
has out "hot,2000,\"process $holder on"
expect 0 --json tiers
has out '"tier":"warm"'
has out '"backend":"off"'
expect 0 --warm-backend host --warm-keep 7d --json config show
has out '"warm_keep"'
interrupted 3 tiers --watch
has out "process $holder"
expect 0 --json wal inspect
has out "process $holder"
expect 6 wal repair
has err "process $holder"
expect 6 --mode shared series append /s one.csv
has err "process $holder"
expect 6 series append /s one.csv
has err "process $holder"
expect 6 --json mv /s /t
has err '"kind":"conflict"'
expect 0 series query /s --limit 1
kill -9 "$holder"
exec 9>&-
wait "$holder" 2>/dev/null
expect 0 tiers
has out 'dead: process'
expect 0 wal inspect
has out 'not open'
cp -r alone alone-broken
segment=$(find alone-broken/_wal -name '*.wal' | sort | head -1)
printf '\377\377\377\377' | dd of="$segment" bs=1 seek=200 conv=notrunc 2>dd.err
expect 8 --store alone-broken wal inspect
has out 'damaged: byte'
has out 'tidelog wal repair'
expect 8 --json --store alone-broken wal inspect
has out '"state":"damaged"'
expect 8 --store alone-broken mkdir /d
has err 'tidelog wal inspect'
expect 0 --store alone-broken wal repair
has out 'put aside: '
has out 'are lost to the log'
expect 0 --store alone-broken wal inspect
has out 'the end is clean'
expect 0 --store alone-broken mkdir /d
expect 4 --store missing wal inspect
expect 4 --store empty wal repair
expect 4 --store "$work/store" wal inspect
has err 'no write-ahead log'
expect 0 sql 'SELECT count(*) AS n FROM "/held"' --format csv
is out 'n
4000'
expect 0 --mode shared series append /held one.csv
has out 'v2001, 2 rows, committed'
expect 0 sql 'SELECT count(*) AS n FROM "/held"' --format csv
is out 'n
4002'
expect 0 fsck --deep
hold --wal-dir gone-wal
for _ in $(seq 300); do
    "$program" --json --wal-dir gone-wal tiers >out 2>err
    grep -q '"appends":2000' out && break
    sleep 0.1
done
expect 6 --mode shared --wal-dir gone-wal --take-over series append /s one.csv
has err "process $holder"
kill -9 "$holder"
exec 9>&-
wait "$holder" 2>/dev/null
expect 6 --mode shared series append /s one.csv
has err '--take-over'
expect 0 --mode shared --take-over mv /held /moved
has err "took the store from process $holder"
expect 6 --wal-dir gone-wal mkdir /e
has err 'wal recover'
expect 0 --mode shared --wal-dir gone-wal wal recover --dry-run
has out 'can be brought in'
expect 0 --json --mode shared --wal-dir gone-wal wal recover
has out '"to":"/moved"'
expect 0 --mode shared --wal-dir gone-wal wal recover
has out '0 versions with 0 rows of 0 records were brought in'
expect 2 --wal-dir gone-wal wal recover --to /held
expect 4 --wal-dir nowhere wal recover
expect 0 --wal-dir gone-wal mkdir /e
expect 0 sql 'SELECT count(*) AS n FROM "/moved"' --format csv
is out 'n
8002'
expect 0 fsck --deep
unset TIDELOG_MODE

# --- settings -------------------------------------------------------------------------------------
export TIDELOG_STORE=$work/set
expect 0 config show
has out 'hot_max_rows'
has out 'default of this program'
has out 'environment, TIDELOG_STORE'
expect 0 init
printf 'mode = "exclusive"\nhot_max_rows = 5\ndurability = "interval:250ms"\n' >set/tidelog.toml
expect 0 config check
has out 'nothing is wrong'
TIDELOG_HOT_MAX_ROWS=6 expect 0 config show
has out 'environment, TIDELOG_HOT_MAX_ROWS'
has out 'set/tidelog.toml, line 1'
TIDELOG_HOT_MAX_ROWS=6 expect 0 --json --hot-max-rows 7 --preset small config show
has out '"flag":"--hot-max-rows","from":"--hot-max-rows","layer":"flag","name":"hot_max_rows","value":"7"'
has out '"from":"preset small","layer":"preset","name":"cache_size","value":"256MiB"'
expect 0 series append /s one.csv
has out 'v1, 2 rows, interval'
expect 0 --durability memory series append /s one.csv
has out 'v2, 2 rows, memory'
TIDELOG_DURABILITY=sync expect 0 series append /s one.csv
has out 'v3, 2 rows, sync'
expect 4 --config missing.toml ls
has err 'missing.toml'
printf '{\n"mode": "shared"}' >one.json
TIDELOG_CONFIG=one.json expect 0 series append /s one.csv
has out 'v4, 2 rows, committed'
expect 0 config check one.json
printf 'memory = "512 MB"\nhot_max_row = 5\npartitions = "many"\n' >wrong.toml
expect 3 config check wrong.toml
has err 'wrong.toml, line 2: "hot_max_row" is no setting; did you mean hot_max_rows?'
has err 'wrong.toml, line 3: partitions: "many" is not a whole number'
expect 3 --config wrong.toml series append /s one.csv
expect 3 --json --config wrong.toml config show
has err '"kind":"invalid_input"'
TIDELOG_MODE=both expect 3 ls
has err 'environment, TIDELOG_MODE'
TIDELOG_MODES=shared expect 3 ls
has err 'did you mean TIDELOG_MODE?'
for flag in --durability=disk --hot-max-rows=0 --hot-max-age=10 --preset=huge --partitions=-1; do
    expect 2 "$flag" ls
done
expect 4 config check missing.toml
expect 3 config check one.csv

# --- a bucket -------------------------------------------------------------------------------------
touch server.env
"$server" --port 0 >server.env &
server_pid=$!
for _ in $(seq 100); do
    grep -q BUCKET server.env && break
    sleep 0.1
done
checks=$((checks + 1))
grep -q BUCKET server.env || fail 'the test server starts'
set -a
. ./server.env
set +a
export TIDELOG_STORE="s3://$BUCKET/smoke"
expect 4 ls
has err 'init'
expect 0 init
expect 5 init
expect 0 series append /s one.csv two.csv
has out 'two.csv: v2, 2 rows'
expect 0 series query /s --as-of v1 --format csv --columns v
is out 'v
1.0
""'
expect 7 --mode exclusive mkdir /a/b
has err 'local disk'
expect 0 --mode exclusive --wal-dir bucket-wal series append /alone one.csv
has out 'v1, 2 rows, sync'
expect 0 rm /alone
expect 0 mkdir /a/b
expect 0 mv /s /a/s
expect 0 ls '/**'
has out '/a/s'
expect 0 describe /a/s
expect 0 log /a/s
expect 0 stats
expect 0 sql 'SELECT count(*) AS n FROM "/a/s"' --format csv
is out 'n
4'
for round in 1 2; do
    TIDELOG_CACHE=cache expect 0 --cache-size 1MB series query /a/s --format csv --columns v
    cp out "cached.$round.csv"
done
expect 0 series query /a/s --format csv --columns v
cmp -s out cached.1.csv && cmp -s out cached.2.csv || fail 'the cache changes no answer'
checks=$((checks + 2))
[ -n "$(find cache -type f)" ] || fail 'the cache keeps what was read'
TIDELOG_CACHE= expect 0 ls
expect 2 --cache cache --cache-size much ls
expect 0 rm -r /a
expect 0 --storage-option region=us-east-1 ls
expect 2 --storage-option region ls
has err 'NAME=VALUE'
expect 3 --storage-option no_such_option=canary ls
has err 'no_such_option'
expect 13 --storage-option "aws_access_key_id=$AWS_ACCESS_KEY_ID" --storage-option aws_secret_access_key=canary ls
has err 'AWS_SECRET_ACCESS_KEY'
expect 4 --store s3://nowhere/smoke ls
has err 'there is no bucket "nowhere"'
checks=$((checks + 1))
! grep -q canary err || fail 'secrets are not told'
kill "$server_pid"
server_pid=
AWS_CONNECT_TIMEOUT=1s expect 9 ls
unset AWS_ENDPOINT_URL AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY BUCKET

# --- history ---------------------------------------------------------------------------------------
export TIDELOG_STORE=$work/history
expect 0 init
printf 'time,v\n2024-01-01,1\n' >day1.csv
printf 'time,v\n2024-01-02,2\n' >day2.csv
printf 'time,v\n2024-01-03,3\n' >day3.csv
expect 0 series append /h/kept.series day1.csv day2.csv day3.csv
expect 0 series append /h/gone.series day1.csv
expect 3 snapshot create v1
has err 'version'
expect 3 snapshot create 2024
expect 0 snapshot ls
is out ''
expect 4 snapshot rm missing
has err 'there is none'
expect 0 snapshot create 'first state'
has out 'first state'
expect 5 snapshot create 'first state'
expect 0 --json snapshot ls
has out '"name":"first state"'
expect 2 expire /h/kept.series
expect 3 expire /h/kept.series --keep-versions 0
expect 3 expire '/h/*' --before v2
expect 4 expire /none --keep-versions 1
expect 0 expire /h/kept.series --keep-versions 1
has out 'readable from v3 on'
expect 0 expire /h/kept.series --before v2
is out 'nothing to let go'
expect 4 series query /h/kept.series --as-of v2
has err 'let go'
has err 'first state'
expect 0 series query /h/kept.series --as-of v3 --format csv
expect 0 series query /h/kept.series --as-of 'first state' --columns v --format csv
is out 'v
1.0
2.0
3.0'
expect 0 sql "SELECT count(*) AS n FROM series('/h/*', 'first state')" --format csv
is out 'n
4'
expect 4 series query /h/kept.series --as-of second
expect 0 describe /h/kept.series
has out 'readable from v3 on'
expect 0 --json log /h/kept.series
has out '"readable":false'
expect 0 log
expect 0 --json stats
has out '"readable_versions":2'
has out '"snapshots":1'
expect 0 rm /h/gone.series
expect 0 expire '/h/*' --before now
has out '/h/gone.series, which was removed'
expect 0 vacuum --older-than 0s
has out 'would delete 0 files'
expect 0 snapshot rm 'first state'
expect 0 vacuum
has out '1 file'
has out 'too young'
expect 0 vacuum --dry-run --older-than 0s
has out 'would delete 1 file'
has out '/h/gone.series'
expect 2 vacuum --apply --dry-run
expect 0 --json vacuum --apply --older-than 0s
has out '"expired":{"bytes":'
expect 0 vacuum --older-than 0s
has out 'would delete 0 files'
expect 0 fsck --deep
has out 'nothing is damaged'

# --- changing data ---------------------------------------------------------------------------------
expect 0 init --store changes
export TIDELOG_STORE=$work/changes
printf 'time,v\n2024-01-01T00:00:00Z,1\n2024-01-01T12:00:00Z,2\n2024-01-02,3\n' >three.csv
printf 'time,v\n2024-01-01T06:00:00Z,7\n' >seven.csv
expect 0 series append /c three.csv
expect 0 series delete /c --from 2024-01-01T12:00:00Z --to 2024-01-01
has out 'v2, 1 row deleted'
expect 0 series query /c --format csv --columns v
is out 'v
1.0
3.0'
expect 0 series query /c --as-of v1 --format csv --columns v
has out '2.0'
expect 0 series delete /c --from 2025-01-01
has out 'nothing stored'
expect 0 --json series delete /c --where 'v > 2.5'
has out '"rows_ended":1'
expect 2 series delete /c
expect 2 series replace /c three.csv --from 2024-01-01
expect 3 series delete /c --where 'w = 1'
has err 'w'
expect 3 series delete /c --from 2024-01-02 --to 2024-01-01
expect 4 series delete /none --from 2024-01-01
expect 3 series replace /c three.csv --from 2024-01-01 --to 2024-01-01
has err 'three.csv'
has err 'row 2'
expect 0 series replace /c seven.csv --from 2024-01-01 --to 2024-01-01
has out 'v4, 1 row in the place of 1 row'
expect 0 series restore /c --to v1
has out 'v5 has the rows of v1'
expect 0 series restore /c --to v5
has out 'nothing stored'
expect 4 series restore /c --to v9
expect 0 series query /c --format csv --columns v
is out 'v
1.0
2.0
3.0'
expect 0 log /c
has out 'restore'
has out '"where":"v > 2.5"'
expect 0 log
has out 'rows_ended'
expect 0 sql "SELECT op, detail FROM tidelog.versions WHERE op = 'replace'" --format csv
has out 'rows_ended'
expect 0 --mode exclusive series delete /c --from 2024-01-02
has out 'v6, 1 row deleted'
expect 0 fsck --deep
has out 'nothing is damaged'
export TIDELOG_STORE=$work/history

# --- layout --------------------------------------------------------------------------------------
expect 0 series append /h/kept.series day2.csv
expect 0 layout /h/kept.series
has out '2 files'
has out 'at most 2 overlap'
has out '█'
expect 0 --json layout /h/kept.series
has out '"overlap":2'
expect 4 layout /h/none
expect 0 series append '/h/<b>&"q".series' day1.csv
expect 0 layout '/h/<b>&"q".series' --svg layout.svg --html layout.html
has layout.svg '&lt;b&gt;&amp;&quot;q&quot;.series at v1'
has layout.html '<table>'
checks=$((checks + 1))
! grep -qF '<b>' layout.svg layout.html || fail 'names are escaped'
expect 4 layout /h/kept.series --svg no/such/dir.svg
expect 0 layout /h/kept.series
has out 'compact would merge 2 files'
expect 0 series create /h/laid --time-column time --key k --order key,time --partition day --codec zstd:9 --row-group 1000
expect 0 describe /h/laid
has out 'key,time, partitions of a day, codec zstd:9, row groups of 1,000'
printf 'time,k,v\n2024-01-01T23:00:00Z,b,1\n2024-01-01T23:00:00Z,a,2\n2024-01-02T01:00:00Z,a,3\n' > laid.csv
expect 0 series append /h/laid laid.csv
expect 0 layout /h/laid
has out 'it is laid out otherwise'
expect 0 sql 'SELECT * FROM "/h/laid" ORDER BY time, k' --format csv
cp out laid-before
expect 0 compact /h/laid
expect 0 layout /h/laid
has out '2 files'
has out '2024-01-02'
expect 0 sql 'SELECT * FROM "/h/laid" ORDER BY time, k' --format csv
cmp -s out laid-before || fail 'a layout changed rows'
expect 0 --json series set /h/laid --order time --partition none
has out '"order":"time"'
expect 0 compact /h/laid
expect 0 sql 'SELECT * FROM "/h/laid" ORDER BY time, k' --format csv
cmp -s out laid-before || fail 'a layout changed rows'
expect 2 series set /h/laid
expect 2 series set /h/laid --order key
has err 'choose time or key,time'
expect 2 series set /h/laid --codec zstd:99
expect 3 series set /h/laid --row-group 1
expect 3 series set /h/kept.series --order key,time
has err 'needs key columns'
expect 4 series set /h/none --codec lz4
expect 2 series create /h/more --order key,time

# --- demo ----------------------------------------------------------------------------------------
unset TIDELOG_STORE
expect 0 demo
has out '26,115 rows'
has out 'versions 2 of 13'
has out 'was 9.0 to 9.0 °F higher'
expect 5 demo
has err 'rm -r'
expect 0 --json demo other
has out '"versions":13'
expect 0 --store tidelog-demo sql 'SELECT count(*) AS n FROM "/weather/nyc.series"' --format csv
is out 'n
26115'
for mode in simple trading; do
    TMPDIR=$work expect 0 demo --rows 60k --batch-size 7_000 --mode $mode --memory 64MB
    has out "60,000 rows of $mode data in 9 batches"
    has out 'top-k'
    checks=$((checks + 1))
    ! grep -qw NO out || fail 'every answer is right'
done
TMPDIR=$work expect 0 --json demo rows-demo --rows 1000 --no-queries
has out '"queries":[]'
expect 0 --store rows-demo sql 'SELECT count(*) AS n FROM "/demo/rows.series"' --format csv
is out 'n
1000'
expect 0 --mode shared --store rows-demo mkdir /d
expect 5 demo rows-demo --rows 10
TMPDIR=$work interrupted 3 demo --rows 1G
checks=$((checks + 1))
[ -z "$(find . -maxdepth 1 -name 'tidelog-demo-*')" ] || fail 'the demo leaves nothing in the temporary directory'
expect 2 demo --rows 0
expect 2 demo --rows many
expect 2 demo --batch-size 10
expect 2 demo --rows 10 --batch-size 0
expect 2 --mode trading demo
expect 2 --store rows-demo --mode simple ls
expect 3 demo --rows 10 --memory 1MB
has err '33554432'

printf '%s checks, %s failures\n' "$checks" "$failures"
[ "$failures" -eq 0 ]
