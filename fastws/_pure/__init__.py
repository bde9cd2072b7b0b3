"""The twins of the compiled modules, in Python alone: same names, same behaviour.

``fastws._impl`` chooses between them; one test suite runs on both.
"""
