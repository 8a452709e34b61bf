"""delta-rs: a Delta table, one commit per append, read through its PyArrow dataset."""

import threading
import time

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable, write_deltalake
from deltalake import __version__ as version

from common import Appender, Timer


class Peer(Appender):
    def __init__(self):
        self._table = None

    def version(self):
        return {"version": version}

    def open(self, store):
        self._path = store

    def prepare(self, table):
        return table

    def append_prepared(self, table):
        write_deltalake(self._path, table, mode="append")

    def range(self, start_us, end_us, column):
        if self._table is None:
            self._table = DeltaTable(self._path)
        start, end = (pd.Timestamp(us, unit="us", tz="UTC") for us in (start_us, end_us))
        between = (ds.field("timestamp") >= start) & (ds.field("timestamp") <= end)
        with Timer() as timer:
            answer = self._table.to_pyarrow_dataset().to_table(filter=between)
        return {"ms": timer.ms, "rows": answer.num_rows, "sum": pc.sum(answer[column]).as_py()}

    def write_for(self, url, endpoint, options, writers, seconds, rows):
        """Appends from several threads for some time; what each landed, and what was given up."""
        options = dict(options, AWS_ENDPOINT_URL=endpoint, AWS_ALLOW_HTTP="true", conditional_put="etag")
        batch = pa.table({
            "timestamp": pa.array(range(rows), pa.timestamp("us", tz="UTC")),
            "sensor": pa.array(range(rows), pa.int64()),
            "value": pa.array([float(row) for row in range(rows)], pa.float64()),
        })
        write_deltalake(url, batch, storage_options=options)
        landed, failed = [0] * writers, [0] * writers
        until = time.monotonic() + seconds

        def write(writer):
            while time.monotonic() < until:
                try:
                    write_deltalake(url, batch, mode="append", storage_options=options)
                    landed[writer] += 1
                except Exception:
                    failed[writer] += 1

        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"landed": landed, "failed": sum(failed), "seconds": time.monotonic() - started}

    def close(self):
        self._table = None
