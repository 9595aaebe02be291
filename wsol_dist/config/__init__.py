"""The sections of a recipe that belong to no single method: plain dataclasses that validate themselves.

They import nothing of the project and no torch, so that reading a recipe is quick; every room may import them.
"""
