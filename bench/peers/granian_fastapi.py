"""FastAPI under granian."""

from bench.peers._granian import run

if __name__ == "__main__":
    run("asgi", "bench.peers._fastapi:app", "bench.peers._fastapi:app")
