"""Cuts the power of a file system under a writer, again and again, and judges what is left.

usage: cut.py BINARY CYCLES [--forget]

BINARY is the test binary that holds the writer and the judge. With --forget the writer's syncs do
nothing. Ends with 1 at the first store that lacks what was acknowledged.
"""

import ctypes
import fcntl
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import threading
import time

# ext4 and xfs: drop all that is not on the disk, the journal not flushed.
SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
CYCLES_PER_STORE = 8
IMAGE_BYTES = 512 << 20
# How a store is written, in turn; what is acknowledged without a sync may be lost, so that is not here.
KINDS = [{"TIDELOG_KILL_ALONE": "1"}, {}]

libc = ctypes.CDLL(None, use_errno=True)


def mount(device, place):
    if libc.mount(device.encode(), str(place).encode(), b"ext4", 0, None):
        raise OSError(ctypes.get_errno(), f"mounting {device}")


def unmount(place):
    for _ in range(100):
        if not libc.umount2(str(place).encode(), 0):
            return
        time.sleep(0.05)
    raise OSError(ctypes.get_errno(), f"unmounting {place}")


class Writer:
    """A process that appends without a pause, and its acknowledgements."""

    def __init__(self, binary, store, first, settings):
        environment = {
            **os.environ,
            "RUST_BACKTRACE": "0",
            "TIDELOG_KILL_STORE": str(store),
            "TIDELOG_KILL_FIRST": str(first),
            **settings,
        }
        arguments = [binary, "kill::writer", "--exact", "--ignored", "--nocapture"]
        self.process = subprocess.Popen(
            arguments,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd="/",
        )
        self.acks = []
        self.first = threading.Event()
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            if line.startswith("ack "):
                self.acks.append(line)
                self.first.set()

    def end(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()


def write_back_some(store):
    """Puts a few files on the disk, as the system does in its own order."""
    files = [path for path in store.rglob("*") if path.is_file()]
    for path in random.sample(files, min(4, len(files))):
        try:
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        os.fsync(file)
        os.close(file)


def cut(place):
    directory = os.open(place, os.O_RDONLY)
    fcntl.ioctl(directory, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
    os.close(directory)


def judge(binary, store, ledger):
    environment = {
        **os.environ,
        "TIDELOG_KILL_STORE": str(store),
        "TIDELOG_KILL_LEDGER": str(ledger),
        "RUST_BACKTRACE": "0",
    }
    name = "kill::a_store_is_judged_by_a_ledger"
    arguments = [binary, name, "--exact", "--ignored", "--nocapture"]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, cwd="/")
    return done.returncode == 0, done.stdout + done.stderr


def main():
    binary, cycles = sys.argv[1], int(sys.argv[2])
    forget = {"TIDELOG_KILL_FORGET": "1"} if "--forget" in sys.argv[3:] else {}
    seed = int(os.environ.get("TIDELOG_POWER_SEED", time.time_ns() % 1_000_000))
    random.seed(seed)
    acked = 0
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        image, place, ledger = scratch / "image", scratch / "mounted", scratch / "ledger"
        place.mkdir()
        with open(image, "wb") as file:
            file.truncate(IMAGE_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0", image], check=True)
        found = subprocess.run(
            ["losetup", "-f", "--show", image], capture_output=True, text=True, check=False
        )
        if found.returncode:
            print(f"skipped: no loop device ({found.stderr.strip()})")
            return 0
        device = found.stdout.strip()
        try:
            for cycle in range(cycles):
                number = cycle // CYCLES_PER_STORE
                store = place / f"store-{number}"
                mount(device, place)
                if cycle % CYCLES_PER_STORE == 0:
                    ledger.write_text("")
                settings = {**KINDS[number % len(KINDS)], **forget}
                writer = Writer(binary, store, cycle * 1_000_000 + 1, settings)
                if not writer.first.wait(60):
                    writer.end()
                    unmount(place)
                    print(f"seed {seed}, cycle {cycle}: nothing was acknowledged")
                    return 1
                time.sleep(random.uniform(0, 0.6))
                write_back_some(store)
                # A sync that is under way while the file system goes down may be told that it is done. What
                # is heard before the call begins was durable before it.
                acks = list(writer.acks)
                cut(place)
                writer.end()
                acked += len(acks)
                with open(ledger, "a", encoding="utf-8") as file:
                    file.writelines(acks)
                unmount(place)
                mount(device, place)
                kept, said = judge(binary, store, ledger)
                unmount(place)
                if not kept:
                    print(said)
                    print(f"seed {seed}, cycle {cycle}: not all that was acknowledged is there")
                    return 1
        finally:
            libc.umount2(str(place).encode(), 0)
            subprocess.run(["losetup", "-d", device], check=False)
    print(f"seed {seed}: {cycles} power cuts, {acked} appends acknowledged, all of them kept")
    return 0


if __name__ == "__main__":
    sys.exit(main())
