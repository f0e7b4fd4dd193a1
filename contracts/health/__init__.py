"""What is checked, what came of it, and how the workers of the fleet are doing."""
