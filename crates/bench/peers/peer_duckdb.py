"""DuckDB on a database file of its own, in its native storage."""

import os
import threading
import time

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from common import Appender, Timer


class Peer(Appender):
    def version(self):
        return {"version": duckdb.__version__}

    def open(self, store, threads=2):
        os.makedirs(store, exist_ok=True)
        self._connection = duckdb.connect(os.path.join(store, "bench.duckdb"))
        self._connection.execute(f"SET threads = {int(threads)}; SET timezone = 'UTC'")

    def stage(self, data):
        super().stage(data)
        empty = self._batches.tables(0, 1)[0].slice(0, 0)
        self._connection.register("empty", empty)
        self._connection.execute("CREATE TABLE IF NOT EXISTS s AS SELECT * FROM empty")

    def prepare(self, table):
        return table

    def append_prepared(self, table):
        self._connection.register("incoming", table)
        self._connection.execute("INSERT INTO s SELECT * FROM incoming")

    def append_for(self, connections, seconds):
        """Appends the first batch from several threads, a connection each, for some time."""
        table = self._batches.tables(0, 1)[0]
        appended = [0] * connections
        until = time.monotonic() + seconds

        def write(number):
            connection = self._connection.cursor()
            connection.register("incoming", table)
            while time.monotonic() < until:
                connection.execute("INSERT INTO s SELECT * FROM incoming")
                appended[number] += 1

        threads = [threading.Thread(target=write, args=(number,)) for number in range(connections)]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"appended": sum(appended), "seconds": time.monotonic() - started}

    def range(self, start_us, end_us, column):
        statement = (
            f"SELECT * FROM s WHERE timestamp BETWEEN make_timestamptz({int(start_us)})"
            f" AND make_timestamptz({int(end_us)}) ORDER BY timestamp"
        )
        with Timer() as timer:
            answer = self._connection.sql(statement).to_arrow_table()
        return {"ms": timer.ms, "rows": answer.num_rows, "sum": pc.sum(answer[column]).as_py()}

    def load(self, parquet, values):
        """The table `cpu`, in time order, from one Parquet file; its times without a zone, which DuckDB buckets faster."""
        columns = "time::TIMESTAMP AS time, * EXCLUDE (time)"
        with Timer() as timer:
            self._connection.execute(
                f"CREATE OR REPLACE TABLE cpu AS SELECT {columns} FROM read_parquet('{parquet}') ORDER BY time"
            )
            self._connection.execute("CHECKPOINT")
        rows = self._connection.execute("SELECT count(*) FROM cpu").fetchall()[0][0]
        return {"ms": timer.ms, "rows": rows}

    def query(self, sql, save=None):
        with Timer() as timer:
            answer = self._connection.sql(sql).to_arrow_table()
        if save:
            with pa.ipc.new_file(save, answer.schema) as out:
                out.write_table(answer)
        return {"ms": timer.ms, "rows": answer.num_rows}

    def close(self):
        self._connection.close()
