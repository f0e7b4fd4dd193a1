"""What the executor can be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ExecutorSettings:
    """Limits of the executor."""

    timeout: float = 30.0
    """Seconds for the statements of a transaction whose callers gave no deadline."""
    batch_lock_timeout: float = 0.2
    """Seconds that a batch waits for a row lock before its calls are run one by one."""
    lone_lock_timeout: float = 1.0
    """Seconds that a call that waits for a row lock keeps its connection at a time."""
    expensive_in_flight: int = 32
    """Expensive queries in work or waiting; beyond it they are shed."""
    hashing: int = 2
    """Threads for slow work of the processor, such as hashing passwords."""
