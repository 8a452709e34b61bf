"""ArcticDB on LMDB, its store for a local disk."""

import arcticdb
import pandas as pd

from common import Appender, Timer

SERIES = "s"
MAP_SIZE = "64GB"


class Peer(Appender):
    def version(self):
        return {"version": arcticdb.__version__}

    def open(self, store):
        self._arctic = arcticdb.Arctic(f"lmdb://{store}?map_size={MAP_SIZE}")
        self._library = self._arctic.get_library("bench", create_if_missing=True)

    def prepare(self, table):
        return table.to_pandas().set_index("timestamp")

    def append_prepared(self, frame):
        self._library.append(SERIES, frame)

    def range(self, start_us, end_us, column):
        between = tuple(pd.Timestamp(us, unit="us", tz="UTC") for us in (start_us, end_us))
        with Timer() as timer:
            frame = self._library.read(SERIES, date_range=between).data
        return {"ms": timer.ms, "rows": len(frame), "sum": float(frame[column].sum())}

    def close(self):
        del self._library, self._arctic
