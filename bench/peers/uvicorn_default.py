"""uvicorn with its default implementation."""

from bench.peers._uvicorn import serve

if __name__ == "__main__":
    serve("auto")
