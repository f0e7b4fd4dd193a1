"""How the detector works; apart from it, because few processes have one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SystemAccount:
    """Where and as whom one is in the system account."""

    servers: list[str]
    credentials: str | None = None
    """A file of credentials, where they are not in the URL."""


@dataclass(frozen=True)
class DetectorSettings:
    """How the detector works; times in seconds."""

    account: SystemAccount
    grace: float = 2.0
    reconnect_time: float = 5.0
