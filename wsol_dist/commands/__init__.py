"""The commands of `wsol`, one module each: parse the arguments, call a room below, print.

Nothing imports a command, and no command imports another.
"""
