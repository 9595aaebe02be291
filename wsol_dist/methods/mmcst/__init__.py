"""MMCST: multi-modal class-specific tokens. `registry.py` alone names it."""
