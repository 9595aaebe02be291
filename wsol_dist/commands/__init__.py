"""The commands of `wsol`: a module each, with its flags (`Options`) and `run(options)`: call a room below, print.

A command with actions is a folder with a module for each action. Nothing imports a command, and no command imports
another.
"""
