"""Become the user a server runs as, tie it to its parent's life, and exec it.

Run as a script of its own between fork and exec, because nothing but exec is safe in a fork of a
process with threads: `_launch.py PARENT SIGNAL UID GID READABLE PROGRAM ARGUMENTS...`
"""

import ctypes
import os
import signal
import sys
from contextlib import suppress

PR_SET_PDEATHSIG = 1
PR_SET_SECUREBITS = 28
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECBIT_NO_SETUID_FIXUP = 1 << 2
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAPABILITY_VERSION_3 = 0x20080522

# Least first. Directories of mode 700 on the way need the second; program files that only root
# may execute (installed under umask 077) need the third.
ATTEMPTS = ((), (CAP_DAC_READ_SEARCH,), (CAP_DAC_OVERRIDE,))


class CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class CapabilityWord(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


CapabilitySets = CapabilityWord * 2


def libc_call(name: str, *arguments: object) -> None:
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def prctl(option: int, value: int, extra: int = 0) -> None:
    libc_call("prctl", option, *(ctypes.c_ulong(word) for word in (value, extra, 0, 0)))


def carry(capabilities: tuple[int, ...]) -> None:
    """Have exactly these capabilities now and, as ambient ones, after exec."""
    header = CapabilityHeader(CAPABILITY_VERSION_3, 0)
    sets = CapabilitySets()
    mask = sum(1 << capability for capability in capabilities)

    libc_call("capget", ctypes.byref(header), sets)
    sets[0].effective = sets[0].inheritable = mask
    sets[1].effective = sets[1].inheritable = 0
    libc_call("capset", ctypes.byref(header), sets)

    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in capabilities:
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)


def become(uid: int, gid: int) -> None:
    if sys.platform == "linux":
        # Keeps what root may do for `carry` to choose from, and makes access(2), with which initdb
        # looks for its programs, count capabilities. Without it only readable files are of use.
        with suppress(PermissionError):
            prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def die_with(parent: int, signal_number: int) -> None:
    """Be signalled when the thread that forked us ends; a change of user would undo this."""
    prctl(PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def execute(command: list[str], readable: list[str]) -> None:
    for path in readable:
        os.close(os.open(path, os.O_RDONLY))
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


def main() -> None:
    parent, signal_number, uid, gid = (int(word) for word in sys.argv[1:5])
    readable, command = sys.argv[5].split(os.pathsep), sys.argv[6:]
    drops_root = os.geteuid() == 0 and uid != 0
    if drops_root:
        become(uid, gid)
    if sys.platform == "linux":
        die_with(parent, signal_number)

    attempts = ATTEMPTS if drops_root and sys.platform == "linux" else ATTEMPTS[:1]
    refusal: OSError | None = None
    for capabilities in attempts:
        try:
            if drops_root and sys.platform == "linux":
                carry(capabilities)
            execute(command, readable)
        except PermissionError as error:
            refusal = error
    sys.exit(f"user {uid} cannot run {command[0]}: {refusal}")


if __name__ == "__main__":
    main()
