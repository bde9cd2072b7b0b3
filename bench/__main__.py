"""Compares WebSocket servers side by side, with bare C as the limit. See bench/README.md."""

import argparse
import signal
import sys
from collections.abc import Sequence

from bench.cases import CASES, CORE, GATEWAY, PROTOCOL, Case
from bench.compare import execute, plan
from bench.native import NoCompiler
from bench.peers import PEERS
from bench.process import BenchError

_ALL = ",".join(CASES)
_QUICK = (
    "lockstep,pipelined,pipelined-text,pipelined-cjk,lockstep-16kib,handshakes,memory,fanout,"
    "tls-pipelined,deflate-1k,gateway-burst,gateway-memory"
)
_QUICK_PEERS = (
    "limit,fastws_listener,fastws_coroutine,picows_core,websockets_asyncio,aiohttp_server,"
    "uwebsockets_cpp,gateway,centrifugo"
)


def _names(cases: Sequence[Case]) -> str:
    return ",".join(case.name for case in cases)


def _peers(cases: Sequence[Case]) -> str:
    """The servers that any of the cases is for."""
    return ",".join(name for name, peer in PEERS.items() if any(case.wants(peer) for case in cases))


_RUNS = (
    ("all", _ALL, ",".join(PEERS), 2, 0.6, "every case on every server; about half an hour"),
    ("quick", _QUICK, _QUICK_PEERS, 1, 0.5, "the main cases and servers; under 5 minutes"),
    ("core", _names(CORE), _peers(CORE), 3, 1.0, "libraries: echo, handshakes, fan-out, memory"),
    ("protocol", _names(PROTOCOL), _peers(PROTOCOL), 3, 1.0, "deflate, TLS, and ASGI servers"),
    ("gateway", _names(GATEWAY), _peers(GATEWAY), 3, 1.0, "gateways"),
    ("compare", _QUICK, _QUICK_PEERS, 3, 1.0, "cases and servers of your choice"),
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, cases, peers, rounds, seconds, text in _RUNS:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--cases", default=cases, help="comma-separated; see `list`")
        command.add_argument("--peers", default=peers, help="comma-separated; see `list`")
        command.add_argument("--rounds", type=int, default=rounds)
        command.add_argument("--seconds", type=float, default=seconds, help="measured per run")
    commands.add_parser("list", help="names of cases and servers")
    return parser


def _list() -> None:
    for case in CASES.values():
        print(f"case  {case.name:20} {case.title}")
    for peer in PEERS.values():
        print(f"peer  {peer.name:20} {peer.label:20} {peer.missing()}")


def main() -> int:
    """Runs the command line; returns the exit status."""
    arguments = _parser().parse_args(sys.argv[1:] or ["all"])
    if arguments.command == "list":
        _list()
        return 0
    # An end by signal must unwind: servers are stopped on the way out, and results are kept.
    # A shell starts what runs in its background with SIGINT ignored.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return execute(
            plan(
                arguments.command,
                arguments.cases,
                arguments.peers,
                arguments.rounds,
                arguments.seconds,
            )
        )
    except (BenchError, NoCompiler) as error:
        print(f"bench: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
