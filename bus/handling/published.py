"""What the process offers to handlers beside the database."""

from typing import Protocol


class Published(Protocol):
    """How far the stream has the log of events."""

    async def wait(self, position: int, seconds: float) -> bool:
        """Whether the stream has this position, at the latest after so many seconds."""
        ...
