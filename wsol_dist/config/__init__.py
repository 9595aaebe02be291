"""The sections of a recipe that belong to no single method: plain dataclasses that say what is allowed.

They import nothing of the project and no torch, so that reading a recipe is quick; every room may import them. An
annotation gives the range of a value, which pydantic checks; `__post_init__` checks what values must be together.
"""
