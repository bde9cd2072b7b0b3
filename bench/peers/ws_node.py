"""`ws` on Node.js."""

from bench.peers._node import run

if __name__ == "__main__":
    run("ws.mjs")
