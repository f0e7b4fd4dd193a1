"""What happened: the log of all events, the history of one entity, and when the stream has it."""
