"""Makes a container in an Azurite that runs, waiting until it answers.

usage: azurite_container.py PORT CONTAINER

The account and its key are those that every Azurite has; they are public.
"""

import base64
import hashlib
import hmac
import http.client
import sys
import time
from email.utils import formatdate

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
VERSION = "2021-12-02"
PATIENCE_SECONDS = 30


def create(port: int, container: str) -> int:
    date = formatdate(usegmt=True)
    headers = f"x-ms-date:{date}\nx-ms-version:{VERSION}\n"
    resource = f"/{ACCOUNT}/{ACCOUNT}/{container}\nrestype:container"
    text = "PUT" + "\n" * 12 + headers + resource
    digest = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
    signature = base64.b64encode(digest).decode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request(
        "PUT",
        f"/{ACCOUNT}/{container}?restype=container",
        headers={
            "x-ms-date": date,
            "x-ms-version": VERSION,
            "Content-Length": "0",
            "Authorization": f"SharedKey {ACCOUNT}:{signature}",
        },
    )
    return connection.getresponse().status


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            status = create(int(sys.argv[1]), sys.argv[2])
        except OSError as error:
            status = error
        if status in (201, 409):
            return 0
        if time.monotonic() > deadline:
            print(f"Azurite does not make a container: {status}", file=sys.stderr)
            return 1
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
