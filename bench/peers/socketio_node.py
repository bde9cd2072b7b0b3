"""socket.io on Node.js, WebSocket only."""

from bench.peers._node import run

if __name__ == "__main__":
    run("socketio.mjs")
