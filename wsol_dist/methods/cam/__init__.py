"""CAM: class activation maps of a CNN. `registry.py` alone names it."""
