import random
import socket
from contextlib import suppress
from pathlib import Path

# Below the range from which systems take local ports for outgoing connections (32768 on Linux,
# 49152 elsewhere): while a server is down, a client that retries could otherwise be given the
# server's port as its own, connect to itself and keep the server from coming back.
PORTS = range(15_000, 32_000)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port() -> int:
    for port in random.sample(PORTS, 200):
        if is_free(port):
            return port
    raise OSError(f"no free port between {PORTS.start} and {PORTS.stop}")


def remembered_port(file: Path) -> int:
    """The port written in `file` if it is free, else another one, which is then written there."""
    with suppress(FileNotFoundError, ValueError):
        if is_free(port := int(file.read_text())):
            return port
    port = free_port()
    file.write_text(f"{port}\n")
    return port
