"""The shop under waitress: prints its address, serves until SIGTERM."""

import signal
import sys

from waitress import create_server

from tests.support.server_shop import make_shop


def main() -> None:
    server = create_server(make_shop(), host="127.0.0.1", port=0, threads=4)
    # waitress ends by SystemExit: what it has been asked is answered before.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"Listening at: http://127.0.0.1:{server.effective_port}", flush=True)
    server.run()


if __name__ == "__main__":
    main()
