"""Several commands in one transaction; the bus runs them."""

from bus.contract import GivenCommand
from bus.handling import together
from contracts.meta.transactions import ExecuteTransaction


@together
def execute_transaction(command: ExecuteTransaction) -> list[GivenCommand]:
    return command.operations
