"""Documents that were generated from repositories."""
