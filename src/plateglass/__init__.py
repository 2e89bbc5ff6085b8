"""From high-content screening plates to single-cell profiles that can be looked behind."""

__version__ = "0.1.0"
