"""Who works: running agents, the provider accounts they run on, and what they said."""
