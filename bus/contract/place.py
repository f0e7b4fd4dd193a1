"""Where a declaration stands: ``contracts/<context>/<noun>.py``, and nowhere else."""

from bus.contract.refusals import DeclarationError


def context_of(cls: type) -> str:
    """The context in whose folder a class is declared."""
    parts = cls.__module__.split(".")
    if len(parts) < 3 or parts[-3] != "contracts":
        raise DeclarationError(
            f"{cls.__qualname__} is declared in {cls.__module__}; "
            "its place is contracts/<context>/<noun>.py"
        )
    return parts[-2]


def module_of(cls: type) -> str:
    """The module in which a class is declared, by its own name."""
    return cls.__module__.rpartition(".")[2]
