"""MMCST: multi-modal class-specific tokens."""
