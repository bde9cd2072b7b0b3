"""uvicorn with ours."""

from bench.peers._uvicorn import serve

if __name__ == "__main__":
    serve("fastws.uvicorn:WebSocketProtocol")
