"""Judges stores that killed writers left, with nothing of Tidelog's own code.

usage: judge.py DIR

DIR holds `store-*/store` and `store-*/acks.jsonl`, as the test
`kill::a_killed_writer_leaves_stores_for_other_judges` leaves them, or `fault-*`, as
`faults::random::random_faults_leave_stores_for_other_judges` does. Each store's log is opened as a
Delta table by python `deltalake`, each data file by `pyarrow`. What is checked:

- commits and parts: every add's record count and statistics are those of the part it names; every
  commit's rows are in the table, and a merge has put the rows of the parts that it removed into others,
  all of them and no more (those of files that have gone without some columns);
- versions of each node are dense, in the order of commits, with strictly increasing write times;
- every live data file has the size, hash, rows, event times and versions that its log row says;
- every version has the rows that its log row says, and those are the ones that its number implies;
- every acked append is there once, and an append to two series is in both or in none (of `fault-*`,
  where one of the two may be removed later: every acked append is there once).

Exits with 0 only if at least one store, one merge, one file and one ack were judged and nothing was off.
"""

import collections
import datetime
import json
import pathlib
import sys

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

try:
    import xxhash
except ImportError:
    xxhash = None

SERIES = ("/k/even.series", "/k/deep/er/odd.series")
SPARED = ("page_hashes", "column_stats", "sorted_runs")
NANOS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


class Judgement:
    """What was looked at, and what was off."""

    def __init__(self):
        self.counts = dict.fromkeys(
            (
                "stores",
                "commits",
                "merges",
                "set aside",
                "versions",
                "files",
                "hashes",
                "rows",
                "acks",
            ),
            0,
        )
        self.faults = []

    def check(self, holds, *what):
        if not holds:
            self.faults.append(" ".join(str(part) for part in what))


def rows_of(number):
    """The rows of append `number`: event time in microseconds, number, index, text."""
    return [
        (
            1_700_000_000_000_000 + (number * 7_919 + i * 104_729) % 1_000_003 * 1_000,
            number,
            i,
            f"{number}/{i}",
        )
        for i in range(number % 4 + 1)
    ]


def agrees(found, said):
    """Whether minimum, maximum and null count are as an add says; it rounds times outwards."""
    (low, high, nulls), (said_low, said_high, said_nulls) = found, said
    if nulls != said_nulls:
        return False
    if not isinstance(low, datetime.datetime):
        return low is None or (low, high) == (said_low, said_high)
    step = datetime.timedelta(milliseconds=1)
    return low - step < said_low <= low and high <= said_high <= high + step


def judge_parts(root, table, judgement):
    """Every add says what its part holds."""
    adds = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    for add in adds:
        where = f"{root}: part {add['path']}"
        part = pq.read_table(root / "_oplog" / add["path"])
        judgement.check(part.num_rows == add["num_records"], where, "has", part.num_rows, "rows")
        for column in part.column_names:
            if f"min.{column}" not in add:
                continue
            values = part[column]
            found = (pc.min(values).as_py(), pc.max(values).as_py(), values.null_count)
            said = tuple(add[f"{key}.{column}"] for key in ("min", "max", "null_count"))
            judgement.check(agrees(found, said), where, column, "is", found, "but said", said)


def rows_in(root, actions):
    """How often each row stands in the parts that adds or removes name."""
    return collections.Counter(
        json.dumps(row, default=str, sort_keys=True)
        for action in actions
        for row in pq.read_table(root / "_oplog" / action["path"]).to_pylist()
    )


def judge_commits(root, table, rows, judgement):
    """Every commit's rows are in the table, whatever parts they have been merged into since."""
    found = collections.Counter(row["commit_version"] for row in rows)
    for number in range(1, table.version() + 1):
        where = f"{root}: commit {number}"
        path = root / "_oplog" / "_delta_log" / f"{number:020}.json"
        if not path.is_file():
            judgement.check(False, where, "is missing")
            continue
        actions = [json.loads(line) for line in path.read_text().splitlines()]
        said = next(a["commitInfo"] for a in actions if "commitInfo" in a)["tidelogRows"]
        judgement.check(found[number] == said, where, "has", found[number], "rows, not", said)
        adds = [action["add"] for action in actions if "add" in action]
        removed = [action["remove"] for action in actions if "remove" in action]
        judge_merge(root, where, removed, [add for add in adds if not add["dataChange"]], judgement)
        judgement.counts["merges"] += bool(removed)
    judgement.counts["commits"] += table.version()


def judge_merge(root, where, removed, merged, judgement):
    """The rows of the parts that a merge removes are in those that it puts, all and no more. Those of files
    that have gone may be set aside, both rows of such a file, without what nobody asks of it."""
    is_aside = lambda add: add["tags"]["tidelog.families"] == "history"
    before = rows_in(root, removed)
    kept = rows_in(root, (add for add in merged if not is_aside(add)))
    aside = rows_in(root, filter(is_aside, merged))
    judgement.check(kept <= before, where, "merged rows that it did not remove")
    is_same = without_spared(before - kept) == without_spared(aside)
    judgement.check(is_same, where, "merged other rows than it removed")
    files = collections.defaultdict(collections.Counter)
    for row, count in aside.items():
        row = json.loads(row)
        if row["kind"] == "file":
            files[row["file_id"]][row["op"]] += count
    both = {"add": 1, "remove": 1}
    judgement.check(all(ops == both for ops in files.values()), where, "set rows of live files aside")
    judgement.counts["set aside"] += len(files)


def without_spared(rows):
    """The rows without the columns that those of files that have gone need not keep."""
    spared = collections.Counter()
    for row, count in rows.items():
        row = json.loads(row)
        if row["kind"] == "file":
            row.update(dict.fromkeys(SPARED))
        spared[json.dumps(row, sort_keys=True)] += count
    return spared


def judge_versions(root, rows, judgement):
    """Versions are dense and in order; returns them by node and number."""
    versions = {}
    for row in rows:
        if row["kind"] == "version":
            versions.setdefault(row["node_id"], []).append(row)
    for node, found in versions.items():
        where = f"{root}: {found[0]['path']} ({node})"
        found.sort(key=lambda row: row["version"])
        numbers = [row["version"] for row in found]
        judgement.check(numbers == list(range(1, len(found) + 1)), where, "has", numbers)
        commits = [row["commit_version"] for row in found]
        judgement.check(commits == sorted(commits), where, "is not in the order of commits")
    times = sorted(row["timestamp"] for row in rows if row["kind"] in ("version", "tree"))
    judgement.check(len(times) == len(set(times)), root, "gave one write time twice")
    judgement.counts["versions"] += sum(map(len, versions.values()))
    return {(node, row["version"]): row for node, found in versions.items() for row in found}


def judge_file(root, row, names, judgement):
    """One data file; returns the columns `names`, the first of them the time, of its rows by version."""
    path = root / row["location"]
    where = f"{root}: {row['location']}"
    if not path.is_file():
        judgement.check(False, where, "is missing")
        return {}
    data = path.read_bytes()
    judgement.check(len(data) == row["size"], where, "has", len(data), "bytes, not", row["size"])
    if xxhash is not None:
        found = xxhash.xxh3_128_hexdigest(data)
        judgement.check(found == row["hash"], where, "has the hash", found, "not", row["hash"])
        judgement.counts["hashes"] += 1
    table = pq.read_table(pa.BufferReader(data))
    judgement.counts["files"] += 1
    judgement.counts["rows"] += table.num_rows
    judgement.check(table.num_rows == row["rows"], where, "has", table.num_rows, "rows")

    time = table[names[0]]
    nanos = NANOS[time.type.unit]
    times = pc.cast(time, pa.int64())
    found = (pc.min(times).as_py() * nanos, pc.max(times).as_py() * nanos)
    said = (row["min_event_time"], row["max_event_time"])
    judgement.check(found == said, where, "has the event times", found, "not", said)
    judgement.check(times.to_pylist() == sorted(times.to_pylist()), where, "is not in order of time")

    versions = pc.add(table["__version"], row["version_base"])
    found = (pc.min(versions).as_py(), pc.max(versions).as_py())
    said = (row["min_version"], row["max_version"])
    judgement.check(said[0] <= found[0] and found[1] <= said[1], where, "has versions", found)

    by_version = {}
    columns = [versions, pc.multiply(times, nanos // 1_000 or 1)]
    columns += [table[name] for name in names[1:]]
    for version, *values in zip(*(column.to_pylist() for column in columns)):
        by_version.setdefault(version, []).append(tuple(values))
    return by_version


def judge_log(root, names, judgement):
    """The log and the live files: version rows, and the rows stored, by node and version."""
    table = DeltaTable(str(root / "_oplog"))
    rows = table.to_pyarrow_table().to_pylist()
    judge_parts(root, table, judgement)
    judge_commits(root, table, rows, judgement)
    versions = judge_versions(root, rows, judgement)

    removed = {row["file_id"] for row in rows if row["kind"] == "file" and row["op"] == "remove"}
    stored = {}
    for row in rows:
        if row["kind"] == "file" and row["op"] == "add" and row["file_id"] not in removed:
            for version, values in judge_file(root, row, names, judgement).items():
                stored.setdefault((row["node_id"], version), []).extend(values)
    for key, row in versions.items():
        where = f"{root}: {row['path']} v{row['version']}"
        judgement.check(len(stored.get(key, [])) == row["rows"], where, "has other than its rows")
    strays = [key for key in stored if key not in versions]
    judgement.check(not strays, root, "holds rows of versions that are not there:", strays)
    judgement.counts["stores"] += 1
    return versions, stored


def acks_of(base):
    return [json.loads(line) for line in (base / "acks.jsonl").read_text().splitlines()]


def judge_killed(base, judgement):
    """What a killed writer left."""
    root = base / "store"
    versions, stored = judge_log(root, ("time", "number", "index", "text"), judgement)
    appends = {}
    for key, row in versions.items():
        values = sorted(stored.get(key, []), key=lambda value: value[2])
        if not values:
            continue
        number = values[0][1]
        where = f"{root}: {row['path']} v{row['version']}"
        judgement.check(values == rows_of(number), where, "holds", values)
        appends.setdefault((row["path"], number), []).append(row["version"])

    for (path, number), found in appends.items():
        judgement.check(len(found) == 1, root, path, "append", number, "is there as", found)
    atomic = [
        {number for path, number in appends if path == series and number % 5 == 0}
        for series in SERIES
    ]
    judgement.check(atomic[0] == atomic[1], root, "halves of", atomic[0] ^ atomic[1])

    for ack in acks_of(base):
        found = appends.get((ack["path"], ack["number"]))
        judgement.check(found == [ack["version"]], root, "ack", ack, "is there as", found)
        judgement.check(len(rows_of(ack["number"])) == ack["rows"], root, "ack", ack)
        judgement.counts["acks"] += 1


def judge_failed(base, judgement):
    """What a writer left whose requests failed at random. All rows of an append carry its mark."""
    root = base / "store"
    versions, stored = judge_log(root, ("ts", "count"), judgement)
    found = {}
    for key, row in versions.items():
        marks = {mark for _, mark in stored.get(key, [])}
        judgement.check(len(marks) == 1, root, row["path"], row["version"], "has the marks", marks)
        found.setdefault(row["transaction_id"], []).append((row["version"], row["rows"], *marks))
    for transaction, appends in found.items():
        judgement.check(len(appends) == 1, root, transaction, "is there as", appends)
    for ack in acks_of(base):
        said = [(ack["version"], ack["rows"], ack["mark"])]
        there = found.get(ack["transaction"])
        judgement.check(there == said, root, "ack", ack, "is there as", there)
        judgement.counts["acks"] += 1


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    judgement = Judgement()
    directory = pathlib.Path(sys.argv[1])
    stores = [(base, judge_killed) for base in sorted(directory.glob("store-*"))]
    stores += [(base, judge_failed) for base in sorted(directory.glob("fault-*"))]
    for base, judge in stores:
        try:
            judge(base, judgement)
        except Exception as error:  # Whatever a judge stumbles over is a fault of the store.
            judgement.check(False, base, "cannot be read:", type(error).__name__, error)
    print(", ".join(f"{count} {what}" for what, count in judgement.counts.items()))
    if xxhash is None:
        print("hashes were not checked: there is no xxhash package")
    for fault in judgement.faults[:20]:
        print("FAULT", fault, file=sys.stderr)
    if judgement.faults:
        sys.exit(f"{len(judgement.faults)} faults")
    if not all(judgement.counts[what] for what in ("stores", "merges", "versions", "files", "acks")):
        sys.exit("nothing was judged")


if __name__ == "__main__":
    main()
