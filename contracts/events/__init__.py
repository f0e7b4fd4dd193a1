"""The log of all events, the history of one entity, and whether the stream holds an event yet."""
