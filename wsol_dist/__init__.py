"""Weakly supervised object localization, trained at cluster scale."""

__version__ = "0.1.0"
