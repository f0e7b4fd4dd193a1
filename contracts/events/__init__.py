"""What happened: the log of all events, the story of one entity, and when the stream has it."""
