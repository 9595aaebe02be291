"""MOLT: the multiscale object localization transformer."""
