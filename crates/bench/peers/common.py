"""What the peers share: the clock, and the batches that the benchmark program wrote for them."""

import time

import pyarrow as pa


class Timer:
    """Milliseconds of the `with` block, in `.ms`."""

    def __enter__(self):
        self._start = time.perf_counter_ns()
        return self

    def __exit__(self, *_):
        self.ms = (time.perf_counter_ns() - self._start) / 1e6


class Batches:
    """The versions to append: the record batches of one Arrow IPC file, one per version."""

    def __init__(self, path):
        self._file = pa.ipc.open_file(pa.memory_map(path))

    def tables(self, first, count):
        return [pa.Table.from_batches([self._file.get_batch(i)]) for i in range(first, first + count)]


class Appender:
    """The part of the protocol that appends versions of one series, one awaited append at a time.

    A peer gives `prepare(table)`, which is not timed, and `append_prepared(prepared)`, which is.
    """

    def stage(self, data):
        self._batches = Batches(data)

    def append(self, first, count):
        prepared = [self.prepare(table) for table in self._batches.tables(first, count)]
        times = []
        for one in prepared:
            with Timer() as timer:
                self.append_prepared(one)
            times.append(timer.ms)
        return {"times_ms": times}
