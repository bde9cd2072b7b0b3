"""FastAPI under uvicorn with wsproto."""

from bench.peers._fastapi import run

if __name__ == "__main__":
    run("wsproto")
