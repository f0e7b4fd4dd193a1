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

    Each command sees the changes of those before it; their consequences (tasks that become ready,
    phases that are completed) follow at the end, once. One idempotency key covers all of them.
    Everything is validated before anything is done.

    A failure is that of the one command that failed, as it would be alone, with ``operation``, its
    index from 0, and ``subject``: any error that this command declares is possible here. An error
    that shows only at the end, such as a rule that is checked at COMMIT, may have neither. After a
    failure nothing is stored, even if the refusal would keep something when the command is sent
    alone, and no reply is shown. The events are those of the commands, in their order.
    """

    operations: Annotated[list[GivenCommand], Field(min_length=1, max_length=100)]
    """The commands, 1–100, in order."""
