"""Who works: running agents, the provider accounts that they run on, and what they said."""
