"""Several commands in one transaction."""

from typing import Annotated

from pydantic import Field

from bus.contract import (
    AlreadyExists,
    Command,
    ConstraintViolated,
    GivenCommand,
    InvalidReference,
    NotTransactional,
    Replies,
)


class ExecuteTransaction(
    Command[Replies],
    subject="db.transactions.execute",
    errors=(NotTransactional, AlreadyExists, InvalidReference, ConstraintViolated),
    transactional=False,
    example={
        "operations": [
            {
                "subject": "db.projects.create",
                "body": {
                    "id": "019aa1c2-7b6e-7d3a-9d51-3f2b8c4e6a10",
                    "name": "demo",
                    "url": "https://example.org/demo.git",
                },
            },
            {
                "subject": "db.projects.update",
                "body": {"id": "019aa1c2-7b6e-7d3a-9d51-3f2b8c4e6a10", "default_branch": "trunk"},
            },
        ]
    },
):
    """Execute several commands in one transaction: all of them, or none.

    Each sees what those before it did; what follows from them (tasks that become ready, phases
    that are completed) follows at the end, once. One idempotency key stands for all. Everything is
    validated before anything is done.

    A failure is the one of the command that failed, as it would be alone, with ``operation``, its
    index from 0, and ``subject``: whatever that command declares is possible here. What shows only
    at the end, such as a rule that is checked at COMMIT, may have neither. Then nothing is stored,
    also where a refusal alone would keep something, and no reply is shown. The events are those of
    the commands, in their order.
    """

    operations: Annotated[list[GivenCommand], Field(min_length=1, max_length=100)]
    """The commands, 1–100, in order."""
