"""Tests and checks with their outcomes, and how the workers of the fleet are doing."""
