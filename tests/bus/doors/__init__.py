"""A context that is no part of the product: doors that are knocked at and opened by a code."""
