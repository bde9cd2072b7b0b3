"""socketify: uWebSockets for CPython; to all by its publish()."""

from pathlib import Path
from typing import Any

from socketify import App, AppListenOptions, AppOptions, CompressOptions

from bench.peers._run import HOST, MAX_SIZE, parse

if __name__ == "__main__":
    options = parse()
    security = None
    if options.tls:
        key = Path(options.tls).with_name("key.pem")
        security = AppOptions(key_file_name=str(key), cert_file_name=options.tls)
    app: Any = App(security)
    deflate = options.deflate

    def _echo(ws: Any, message: Any, code: int) -> None:
        ws.send(message, code, deflate)

    def _to_all(ws: Any, message: Any, code: int) -> None:
        app.publish("all", message, code)

    behavior = {
        # The shared ones are uWebSockets' fastest; they keep no context.
        "compression": CompressOptions.SHARED_COMPRESSOR | CompressOptions.SHARED_DECOMPRESSOR
        if deflate
        else CompressOptions.DISABLED,
        "max_payload_length": MAX_SIZE,
        "max_backpressure": MAX_SIZE,
        "idle_timeout": 0,
        "message": _to_all if options.broadcast else _echo,
    }
    if options.broadcast:
        behavior["open"] = lambda ws: ws.subscribe("all")
    app.ws("/*", behavior)
    app.listen(AppListenOptions(port=options.port, host=HOST), lambda config: None)
    app.run()
