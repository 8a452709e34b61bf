"""ClickHouse within the process (chDB), on a MergeTree of its own."""

import os

import chdb
import pyarrow as pa
from chdb import session

from common import Timer

TAGS = "hostname region datacenter rack os arch team service service_version service_environment".split()


class Peer:
    def version(self):
        return {"version": f"{chdb.engine_version} (chdb {'.'.join(map(str, chdb.chdb_version))})"}

    def open(self, store, threads=2):
        os.makedirs(store, exist_ok=True)
        self._session = session.Session(store)
        self._session.query("CREATE DATABASE IF NOT EXISTS bench")
        self._session.query("USE bench")
        self._session.query(f"SET max_threads = {int(threads)}")

    def load(self, parquet, values):
        """The table `cpu`, ordered by host and time as ClickHouse's own port of the workload has it."""
        tags = ", ".join(f"{tag} LowCardinality(String)" for tag in TAGS)
        fields = ", ".join(f"{value} Float64" for value in values)
        self._session.query("DROP TABLE IF EXISTS cpu")
        self._session.query(
            f"CREATE TABLE cpu (time DateTime64(6, 'UTC'), {tags}, {fields}) ENGINE = MergeTree ORDER BY (hostname, time)"
        )
        with Timer() as timer:
            self._session.query(f"INSERT INTO cpu SELECT * FROM file('{parquet}', Parquet)")
            self._session.query("OPTIMIZE TABLE cpu FINAL")
        rows = int(self._session.query("SELECT count() FROM cpu", "CSV").data())
        return {"ms": timer.ms, "rows": rows}

    def query(self, sql, save=None):
        with Timer() as timer:
            answer = bytes(self._session.query(sql, "Arrow").bytes())
        if save:
            with open(save, "wb") as out:
                out.write(answer)
        return {"ms": timer.ms, "rows": pa.ipc.open_file(answer).read_all().num_rows}

    def close(self):
        self._session.close()
