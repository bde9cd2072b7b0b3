from typing import Final

MAX_SIZE: Final[int]

def create_delta(base: bytes, target: bytes) -> bytes | None: ...
