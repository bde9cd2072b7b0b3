"""The gateway as anybody starts it, with default settings.

Several workers are as many gateways with the embedded engine, each on a port of its own.
"""

import os
import sys

from bench.backend import API_KEY
from bench.dialects import TOKEN_SECRET
from bench.peers._run import parse
from bench.peers._several import become

if __name__ == "__main__":
    options = parse()
    if options.ping != 25:
        os.environ["FASTWS_CLIENT_PING_INTERVAL"] = f"{options.ping}s"
        os.environ["FASTWS_CLIENT_PONG_TIMEOUT"] = "5s"
    if options.tokens:
        os.environ["FASTWS_HTTP_API_KEY"] = API_KEY
        os.environ["FASTWS_CLIENT_TOKEN_HMAC_SECRET_KEY"] = TOKEN_SECRET
        for key, value in (
            ("PRESENCE", "true"),
            ("HISTORY_SIZE", "100"),
            ("HISTORY_TTL", "10m"),
            ("ALLOW_SUBSCRIBE_FOR_CLIENT", "true"),
        ):
            os.environ[f"FASTWS_CHANNEL_WITHOUT_NAMESPACE_{key}"] = value
    more = [] if options.tokens else ["--dev"]
    become(
        options.workers,
        options.port,
        lambda port: [sys.executable, "-m", "gateway", "serve", *more, "--port", str(port)],
    )
