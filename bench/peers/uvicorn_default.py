"""FastAPI under uvicorn with its default WebSockets."""

from bench.peers._fastapi import run

if __name__ == "__main__":
    run("auto")
