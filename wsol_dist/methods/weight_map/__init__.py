"""The weight map, methods I and II. `registry.py` alone names it."""
