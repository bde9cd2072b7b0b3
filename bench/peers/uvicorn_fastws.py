"""FastAPI under uvicorn with our WebSockets."""

from bench.peers._fastapi import run

if __name__ == "__main__":
    run("fastws.uvicorn:WebSocketProtocol")
