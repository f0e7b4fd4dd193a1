"""A handler process with one more operation: ``db.signins.open`` hashes a password at each call.

``python -m benchmarks.signing`` is what ``fleetbus.server.processes`` is, and takes its settings.
"""

import hashlib
import runpy
from dataclasses import dataclass

from bus.contract.errors import CredentialsUnreadable
from bus.contract.model import Reply
from bus.contract.operation import Command
from bus.contract.sensitive import Sensitive
from bus.handling import Slow, handler, prepare

COST = 2**14
"""Of scrypt: some 50 ms and 16 MiB, as careful defaults for passwords are."""

SALT = b"the same for all"


@dataclass(frozen=True)
class Hashed:
    """The hash of a password."""

    digest: str


class SignIn(Reply):
    """What was hashed, shortened."""

    digest: str


def declare() -> None:
    """Declare the operation in a context that there is."""

    class OpenSignin(
        Command[SignIn],
        subject="db.signins.open",
        errors=(CredentialsUnreadable,),
        secret=True,
    ):
        """Hash a password, then answer in a transaction."""

        __module__ = "contracts.agents.signins"

        password: Sensitive[str]

    async def hash_password(command: OpenSignin) -> Slow[Hashed]:
        return Slow(_hashed, command.password)

    async def open_signin(_: OpenSignin, *, hashed: Hashed) -> SignIn:
        return SignIn(digest=hashed.digest[:16])

    for decorate, function in ((prepare, hash_password), (handler, open_signin)):
        function.__module__ = "handlers.agents.signins"
        decorate(function)


def _hashed(password: str) -> Hashed:
    return Hashed(hashlib.scrypt(password.encode(), salt=SALT, n=COST, r=8, p=1).hex())


if __name__ == "__main__":
    declare()
    runpy.run_module("fleetbus.server.processes", run_name="__main__")
