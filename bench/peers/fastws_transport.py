"""The same Listener over a transport of uvloop's: what the reactor's own TLS is compared with."""

import functools

from bench.peers._run import run
from bench.peers.fastws_listener import serve

if __name__ == "__main__":
    run(functools.partial(serve, carrier="asyncio"))
