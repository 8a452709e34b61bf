"""An S3 server of moto's whose conditional puts are atomic.

usage: moto_atomic.py PORT-FILE BUCKET

Listens on a free loopback port, makes the bucket, writes the port to the file (whole: it appears by
rename) and serves until it is killed. moto checks a condition and then writes, with nothing that
keeps two requests apart; here one lock is held round each request, as a real server would decide
them. Who may call is not checked.
"""

import io
import os
import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from werkzeug.test import Client


class OneAtATime:
    def __init__(self, app):
        self.app = app
        self.lock = threading.Lock()

    def __call__(self, environ, start_response):
        # The body is read before the lock is taken: a slow client must not hold up the others.
        length = int(environ.get("CONTENT_LENGTH") or 0)
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(length))
        with self.lock:
            return [b"".join(self.app(environ, start_response))]


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    port_file, bucket = sys.argv[1:]
    app = OneAtATime(DomainDispatcherApplication(create_backend_app))
    made = Client(app).put(f"/{bucket}", base_url="http://127.0.0.1")
    if made.status_code != 200:
        print(f"the bucket cannot be made: {made.status}", file=sys.stderr)
        return 1
    server = make_server("127.0.0.1", 0, app, threaded=True)
    with open(port_file + ".new", "w", encoding="ascii") as file:
        file.write(str(server.server_port))
    os.rename(port_file + ".new", port_file)
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
