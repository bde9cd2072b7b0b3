"""Compares WebSocket servers side by side, with bare C as the limit. See bench/README.md."""

import argparse
import signal
import sys

from bench.cases import CASES, CORE, GATEWAY, PROTOCOL
from bench.compare import execute, plan
from bench.native import NoCompiler
from bench.peers import PEERS
from bench.process import BenchError

_CORE_CASES = ",".join(case.name for case in CORE)
_GATEWAY_CASES = ",".join(case.name for case in GATEWAY)
_PROTOCOL_CASES = ",".join(case.name for case in PROTOCOL)
_PROTOCOL_PEERS = ",".join(name for name in PEERS if name not in ("limit", "gateway"))
_CORE_PEERS = ",".join(
    name
    for name, peer in PEERS.items()
    if "broadcast" in peer.roles and name != "gateway"  # fan-out is among the cases
)
_RUNS = (
    ("quick", _CORE_CASES, _CORE_PEERS, 1, 1.0, "every library case once; under 5 minutes"),
    ("core", _CORE_CASES, _CORE_PEERS, 5, 2.0, "every library case, several rounds"),
    ("gateway", _GATEWAY_CASES, "limit,gateway,fastws_listener", 3, 2.0, "the gateway's cases"),
    ("protocol", _PROTOCOL_CASES, _PROTOCOL_PEERS, 3, 2.0, "deflate, TLS, and ASGI servers"),
    ("compare", _CORE_CASES, _CORE_PEERS, 3, 2.0, "cases and servers of your choice"),
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    text = "core, protocol, then gateway; so does no command at all"
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("all", help=text, description=text)
    for name, cases, peers, rounds, seconds, text in _RUNS:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--cases", default=cases, help="comma-separated; see `list`")
        command.add_argument("--peers", default=peers, help="comma-separated, the base first")
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
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.command == "list":
        _list()
        return 0
    chosen = [arguments]
    if arguments.command in (None, "all"):
        chosen = [parser.parse_args([name]) for name in ("core", "protocol", "gateway")]
    # An end by signal must unwind: servers are stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        plans = [plan(one.command, one.cases, one.peers, one.rounds, one.seconds) for one in chosen]
        return max([execute(one) for one in plans])
    except (BenchError, NoCompiler) as error:
        print(f"bench: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
