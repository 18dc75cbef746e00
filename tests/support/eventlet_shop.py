"""The shop in one process of green threads: prints its address, serves until SIGTERM."""

import os

# Its own name look-ups import dnspython, and by that what can not be patched.
os.environ["EVENTLET_NO_GREENDNS"] = "yes"

import eventlet

eventlet.monkey_patch()

import signal  # noqa: E402

from eventlet import wsgi  # noqa: E402

from tests.support.server_shop import make_shop  # noqa: E402


def main() -> None:
    listener = eventlet.listen(("127.0.0.1", 0))
    server = eventlet.spawn(wsgi.server, listener, make_shop(), log_output=False)
    # The server takes this as its end: it accepts no more and finishes what it has.
    signal.signal(signal.SIGTERM, lambda *_: eventlet.spawn_n(server.kill, SystemExit))
    print(f"Listening at: http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    server.wait()


if __name__ == "__main__":
    main()
