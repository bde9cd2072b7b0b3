"""Installs the servers under test: `python -m bench.peers install [NAME ...]`, or `list`."""

import argparse
import json
import subprocess
import sys

from bench.peers import PEERS
from bench.peers._programs import BUILD, PROGRAMS, REASONS, NotInstalled, reasons


def install(names: list[str], again: bool) -> int:
    """Installs what is not there; returns how many could not be. Their reasons are kept."""
    failed = reasons()
    for name in names:
        program = PROGRAMS[name]
        if program.locate() and not again:
            print(f"{name}: there already")
            failed.pop(name, None)
            continue
        print(f"{name}: installing", flush=True)
        try:
            program.install()
            failed.pop(name, None)
        except NotInstalled as error:
            failed[name] = str(error)
        except (OSError, subprocess.CalledProcessError) as error:
            failed[name] = f"{error}".replace(str(BUILD), "build")[:300]
        if name in failed:
            print(f"{name}: NOT installed: {failed[name]}")
    BUILD.mkdir(exist_ok=True)
    REASONS.write_text(json.dumps(failed, indent=1) + "\n")
    return len(set(failed) & set(names))


def main() -> int:
    """Runs the command line; a server that can't be installed is not an error, it is a row."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("install")
    command.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PROGRAMS))
    command.add_argument("--again", action="store_true", help="also what is there already")
    command.add_argument("--strict", action="store_true", help="exit 1 when one is missing")
    commands.add_parser("list", help="servers, and why those that can't run can't")
    options = parser.parse_args()
    if options.command == "list":
        for peer in PEERS.values():
            reason = peer.missing()
            versions = ", ".join(f"{key} {value}" for key, value in peer.versions().items())
            print(f"{peer.name:20} {peer.label:32} {reason or versions}")
        return 0
    if unknown := [name for name in options.names if name not in PROGRAMS]:
        parser.error(f"there is no '{unknown[0]}'; there are {', '.join(PROGRAMS)}")
    failures = install(options.names or list(PROGRAMS), options.again)
    return int(options.strict and failures > 0)


if __name__ == "__main__":
    sys.exit(main())
