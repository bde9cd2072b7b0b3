from collections.abc import Callable
from typing import Final

from typing_extensions import Buffer

from .deflate import Deflater, DeflaterKey

class OwnDeflater:
    key: Final[DeflaterKey]

    def __init__(
        self, key: DeflaterKey, make_other: Callable[[], Deflater], most: int = ...
    ) -> None: ...
    def compress(self, data: Buffer) -> bytes: ...

class OwnInflater:
    def inflate(self, data: bytes, room: int) -> bytes | None: ...
