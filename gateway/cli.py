"""The command ``fastws-gateway``."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import structlog
import typer

from gateway import __version__, config, helpers, log, systemd
from gateway.app import App
from gateway.config import Config, ConfigError
from gateway.server import Gateway

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

for command in (
    helpers.genconfig,
    helpers.checkconfig,
    helpers.configdoc,
    helpers.gentoken,
    helpers.gensubtoken,
    helpers.checktoken,
    helpers.checksubtoken,
    helpers.top,
):
    app.command()(command)


@app.callback()
def fastws_gateway() -> None:
    """A realtime gateway for WebSocket clients."""


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


@app.command()
def serve(
    config_file: helpers.ConfigFile = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one. [8000]")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes. [1]")] = None,
    dev: Annotated[
        bool | None, typer.Option("--dev", help="Anyone may connect, subscribe and publish.")
    ] = None,
    app_name: Annotated[
        str | None, typer.Option("--app", help="Application, as module:name.")
    ] = None,
) -> None:
    """Run the gateway until SIGTERM or SIGINT."""
    flags: dict[str, Any] = {
        "http_server.address": host,
        "http_server.port": port,
        "http_server.workers": workers,
        "dev": dev or None,
    }
    try:
        read = partial(config.load, config_file, os.environ, flags)
        settings = read()
        application = _load_app(app_name) if app_name is not None else None
        log.configure(settings.log)
        _run(settings, application, read)
    except ConfigError as error:
        raise helpers.fail(error) from None
    except OSError as error:
        raise helpers.fail(f"cannot listen: {error}", 1) from None


def _load_app(name: str) -> App:
    """The application that ``--app`` names: an `App`, or a class of them."""
    module, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute or "app")
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"--app {name}: {error}") from None
    if isinstance(found, type):
        found = found()
    if not isinstance(found, App):
        raise ConfigError(f"--app {name}: this is no gateway.app.App, but {type(found).__name__}")
    return found


def _run(settings: Config, application: App | None, read: Callable[[], Config]) -> None:
    try:
        import uvloop
    except ImportError:  # not on Windows
        asyncio.run(_serve(settings, application, read))
    else:
        uvloop.run(_serve(settings, application, read))


async def _serve(settings: Config, application: App | None, read: Callable[[], Config]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if settings.dev:
        structlog.get_logger("gateway").warning(
            "dev mode: anyone who reaches this port may connect, subscribe and publish"
        )
    for text in config.warnings(settings):
        structlog.get_logger("gateway").warning(text)
    gateway = Gateway(settings, application, systemd.listening_sockets())
    if hasattr(signal, "SIGHUP"):
        loop.add_signal_handler(signal.SIGHUP, _reload, gateway, read)
    async with gateway:
        gateway.notifier.ready()
        if not gateway.admits_anyone:
            structlog.get_logger("gateway").warning(
                "nobody can connect: set a key in client.token, or "
                "client.allow_anonymous_connect_without_token, or try it with --dev"
            )
        await stop.wait()
        gateway.notifier.stopping()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)  # a second signal ends the process at once


def _reload(gateway: Gateway, read: Callable[[], Config]) -> None:
    """Read the configuration again; one with a fault is refused whole."""
    gateway.notifier.reloading()
    try:
        gateway.reload(read())
    except ConfigError as error:
        structlog.get_logger("gateway").error("not reloaded", error=str(error))
        gateway.notifier.status(f"The last reload was refused: {error}")
    else:
        gateway.notifier.status("")
    gateway.notifier.ready()


def main() -> None:
    """Entry point of the console script."""
    app(prog_name="fastws-gateway")
