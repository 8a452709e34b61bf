"""delta-rs: a Delta table, one commit per append, read through its PyArrow dataset."""

import pandas as pd
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

    def close(self):
        self._table = None
