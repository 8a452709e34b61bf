"""Drives one peer for the benchmarks: one JSON request a line on stdin, one JSON reply a line on stdout.

    peer.py PEER                     serve until stdin ends
    peer.py PEER --version           print the peer's version
    peer.py PEER --append-one --store DIR --data FILE --count N
                                     append N versions and stop (what a system-call tracer runs)

A request is {"op": NAME, "args": {...}} and calls the method of that name; its return value is the reply.
Times are taken inside the methods, around the operation that a user would wait for and nothing else;
preparing the input in the peer's own form and summing up its answer lie outside.
An exception becomes {"error": TEXT}; the peer stays alive.
"""

import argparse
import importlib
import json
import os
import sys
import traceback

MODULES = {
    "arcticdb": "peer_arcticdb",
    "delta-rs": "peer_delta",
    "duckdb": "peer_duckdb",
    "clickhouse": "peer_clickhouse",
}


def serve(peer, requests, replies):
    for line in requests:
        request = json.loads(line)
        try:
            reply = getattr(peer, request["op"])(**request.get("args", {}))
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            reply = {"error": f"{type(error).__name__}: {error}"[:2000]}
        replies.write(json.dumps(reply if reply is not None else {}) + "\n")
        replies.flush()


def append_one(peer, store, data, count):
    peer.open(store=store)
    peer.stage(data=data)
    peer.append(first=0, count=count)
    peer.close()


def take_stdout():
    """The peers' libraries may print: give the real stdout to the protocol, and stderr to them."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return replies


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=MODULES)
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--append-one", action="store_true")
    parser.add_argument("--store")
    parser.add_argument("--data")
    parser.add_argument("--count", type=int)
    arguments = parser.parse_args()
    peer = importlib.import_module(MODULES[arguments.peer]).Peer()
    if arguments.version:
        print(arguments.peer, peer.version()["version"])
    elif arguments.append_one:
        append_one(peer, arguments.store, arguments.data, arguments.count)
    else:
        serve(peer, sys.stdin, take_stdout())


if __name__ == "__main__":
    main()
