"""Fuzzing: ``python -m fuzz`` builds and runs it, ``README.md`` says how."""
