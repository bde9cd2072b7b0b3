"""granian through RSGI, its own and faster interface, on uvloop with one worker."""

from typing import Any

from bench.peers._granian import run

connections: set[Any] = set()


async def echo(scope: Any, protocol: Any) -> None:
    """Every message back."""
    transport = await protocol.accept()
    while (message := await transport.receive()).kind:
        if message.kind == 1:
            await transport.send_bytes(message.data)
        else:
            await transport.send_str(message.data)


async def to_all(scope: Any, protocol: Any) -> None:
    """Every message to all."""
    transport = await protocol.accept()
    connections.add(transport)
    try:
        while (message := await transport.receive()).kind:
            for other in connections:
                if message.kind == 1:
                    await other.send_bytes(message.data)
                else:
                    await other.send_str(message.data)
    finally:
        connections.discard(transport)


if __name__ == "__main__":
    run("rsgi", "bench.peers.granian_rsgi:echo", "bench.peers.granian_rsgi:to_all")
