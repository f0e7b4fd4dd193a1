"""The workers: running agents, the provider accounts that they run on, and their logs."""
