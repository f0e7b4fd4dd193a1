"""Data directories of versions before, and what today's version makes of them."""
