"""Four in a row, for two: the first to come opens a game, the next to come with its key joins.

``python four_in_a_row.py [PORT]``. Connect to ws://127.0.0.1:8765/new for a game and its key, to
/KEY for the other side. A move is ``{"column": 0..6}``; every event is an object with ``type``.
"""

import asyncio
import json
import secrets
import sys
from collections.abc import Iterator

from fastws import ConnectionClosed, ServerConnection, broadcast, serve

COLUMNS, ROWS = 7, 6


class Board:
    """Who has which place; the sides are 0 and 1, and 0 begins."""

    def __init__(self) -> None:
        self.columns: list[list[int]] = [[] for _ in range(COLUMNS)]
        self.turn = 0

    def play(self, side: int, column: int) -> int:
        """The row in which the piece lands; ``ValueError`` if it may not."""
        if side != self.turn:
            raise ValueError("it is not your turn")
        if not 0 <= column < COLUMNS:
            raise ValueError("there is no such column")
        if len(self.columns[column]) == ROWS:
            raise ValueError("this column is full")
        self.columns[column].append(side)
        self.turn = 1 - side
        return len(self.columns[column]) - 1

    def wins(self, column: int, row: int) -> bool:
        """Whether the piece there is one of four."""
        side = self.columns[column][row]
        for step in ((1, 0), (0, 1), (1, 1), (1, -1)):
            length = 1
            for sign in (1, -1):
                for x, y in self.line(column, row, step[0] * sign, step[1] * sign):
                    if self.columns[x][y] != side:
                        break
                    length += 1
            if length >= 4:
                return True
        return False

    def line(self, x: int, y: int, dx: int, dy: int) -> Iterator[tuple[int, int]]:
        """The pieces from the next place on."""
        x, y = x + dx, y + dy
        while 0 <= x < COLUMNS and 0 <= y < len(self.columns[x]):
            yield x, y
            x, y = x + dx, y + dy


class Game:
    """A board and the connections of its two sides."""

    def __init__(self) -> None:
        self.board = Board()
        self.sides: list[ServerConnection] = []

    def tell(self, **event: object) -> None:
        broadcast(self.sides, json.dumps(event))


games: dict[str, Game] = {}


async def play(ws: ServerConnection, game: Game) -> None:
    """One side's moves, until somebody has won or is gone."""
    side = len(game.sides)
    game.sides.append(ws)
    if side == 1:
        game.tell(type="begin")
    async for message in ws:
        try:
            column = json.loads(message)["column"]
            row = game.board.play(side, column)
        except (ValueError, KeyError, TypeError) as error:
            await ws.send(json.dumps({"type": "error", "message": str(error)}))
            continue
        game.tell(type="move", side=side, column=column, row=row)
        if game.board.wins(column, row):
            game.tell(type="win", side=side)
            return


async def handler(ws: ServerConnection) -> None:
    key = ws.request.path.removeprefix("/")
    if key == "new":
        key = secrets.token_urlsafe(6)
        games[key] = Game()
        await ws.send(json.dumps({"type": "new", "key": key}))
    game = games.get(key)
    if game is None or len(game.sides) == 2:
        await ws.close(4404, "no such game")
        return
    try:
        await play(ws, game)
    except ConnectionClosed:
        pass
    finally:
        games.pop(key, None)
        for other in game.sides:
            await other.close(1000, "the game is over")


async def main(port: int) -> None:
    async with serve(handler, "127.0.0.1", port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8765))
