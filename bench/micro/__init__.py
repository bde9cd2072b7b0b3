"""Single functions, ours beside those of other libraries, on sizes from 1 B to 16 MiB.

`python -m bench.micro` runs them by pytest-benchmark and prints a table; `-k mask` chooses.
"""
