"""Chat rooms: /join ROOM, /nick NAME, /who; anything else goes to the room.

``python chat.py [PORT]``, then connect WebSocket clients to ws://127.0.0.1:8765.
"""

import asyncio
import sys
from collections import defaultdict

from fastws import ConnectionClosed, ServerConnection, broadcast, serve

rooms: defaultdict[str, dict[ServerConnection, str]] = defaultdict(dict)


class Guest:
    """One connection: a name, and the room that it is in."""

    def __init__(self, ws: ServerConnection) -> None:
        self.ws = ws
        self.name = f"guest-{str(ws.id)[:4]}"
        self.room = ""

    def move(self, room: str) -> None:
        """To another room; ``""`` is nowhere."""
        if self.room:
            del rooms[self.room][self.ws]
            broadcast(rooms[self.room], f"* {self.name} left")
        self.room = room
        if room:
            broadcast(rooms[room], f"* {self.name} joined")
            rooms[room][self.ws] = self.name

    async def obey(self, text: str) -> None:
        command, _, argument = text.partition(" ")
        if command == "/join" and argument:
            self.move(argument)
        elif command == "/nick" and argument:
            broadcast(rooms[self.room], f"* {self.name} is now {argument}")
            self.name = rooms[self.room][self.ws] = argument
        elif command == "/who":
            await self.ws.send(", ".join(sorted(rooms[self.room].values())))
        elif command.startswith("/"):
            await self.ws.send(f"* there is no {command}")
        else:
            broadcast(rooms[self.room], f"{self.name}: {text}")


async def handler(ws: ServerConnection) -> None:
    guest = Guest(ws)
    guest.move("lobby")
    try:
        async for message in ws:
            if isinstance(message, bytes):
                await ws.close(1003, "text, please")
            else:
                await guest.obey(message)
    except ConnectionClosed:
        pass
    finally:
        guest.move("")


async def main(port: int) -> None:
    async with serve(handler, "127.0.0.1", port, max_size=4096) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8765))
