"""``python -m gateway`` and the console script: the command ``fastws-gateway``."""

import sys


def main() -> None:
    """Run the command, or say in one line what it lacks: the library alone has no dependencies."""
    try:
        from gateway.cli import main as run
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("fastws", "gateway"):
            raise
        sys.exit(
            f"fastws-gateway: {missing} is not installed: pip install 'fastws-gateway[gateway]'"
        )
    run()


if __name__ == "__main__":
    main()
