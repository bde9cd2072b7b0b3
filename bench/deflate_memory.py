"""What a compressor and a decompressor of one connection with context takeover hold, per package.

Each figure is from a process of its own: memory that it has more (PSS) after `COUNT` of them have
seen `MESSAGES` messages of JSON each. Linux only.
"""

import gc
import os
import random
import subprocess
import sys
from typing import Any

from bench.deflate import _document
from bench.process import memory
from fastws.deflate import _PACKAGES, Deflater, DeflaterKey, Inflater, _key, _package

COUNT = 300
MESSAGES = 30
SIZE = 8192  # bytes of a message
SETTINGS = ((15, 8), (12, 8), (12, 5), (9, 5))  # window bits, memory level
KINDS = ("compressor", "decompressor")


def measure(package: str, kind: str, window_bits: int, memory_level: int) -> int:
    """Bytes for one of them."""
    chance = random.Random(1)
    messages = [_document(chance, SIZE) for _ in range(MESSAGES)]
    sender = Deflater(DeflaterKey("zlib", 1, window_bits, 8), context=True)
    payloads = [sender.compress(message) for message in messages]

    def used() -> Any:
        if kind == "compressor":
            deflater = Deflater(_key(package, 1, window_bits, memory_level), context=True)
            for message in messages:
                deflater.compress(message)
            return deflater
        inflater = Inflater(_package(package), window_bits, context=True)
        for payload in payloads:
            inflater.inflate(payload, 1 << 20, True)
        return inflater

    kept = [used() for _ in range(20)]  # what is held once is not to count
    gc.collect()
    before = memory(os.getpid())["pss"]
    kept += [used() for _ in range(COUNT)]
    gc.collect()
    return (memory(os.getpid())["pss"] - before) // COUNT


def main() -> None:
    if len(sys.argv) > 1:
        package, kind, bits, level = sys.argv[1:]
        print(measure(package, kind, int(bits), int(level)))
        return
    for window_bits, memory_level in SETTINGS:
        for kind in KINDS:
            for package in reversed(_PACKAGES):
                if _package(package) is None or (package, kind) == ("isal", "decompressor"):
                    continue  # its streams cannot be copied, and are not used to decompress
                arguments = [package, kind, str(window_bits), str(memory_level)]
                command = [sys.executable, "-m", "bench.deflate_memory", *arguments]
                found = subprocess.run(command, capture_output=True, text=True, check=True)
                size = f"{int(found.stdout) / 1000:5.0f} KB"
                print(f"{window_bits:2}, {memory_level}  {kind:12}  {package:7}  {size}")


if __name__ == "__main__":
    main()
