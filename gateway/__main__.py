"""``python -m gateway`` is the command ``fastws-gateway``."""

from gateway.cli import main

if __name__ == "__main__":
    main()
