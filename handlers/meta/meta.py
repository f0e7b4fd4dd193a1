"""What the service says about itself; each answer is made once, for the declarations are fixed."""

import inspect
from functools import cache
from importlib.metadata import version
from typing import Any

from bus.contract import EVERYWHERE, Event, Operation, Page, Refusal
from bus.contract import asyncapi as _asyncapi
from bus.contract.catalogue import Catalogue
from bus.contract.schemas import example_of, problem_schema_of, schema_of
from bus.handling import query
from contracts.meta.meta import (
    AsyncApi,
    ContextNotFound,
    DescribeOperation,
    ErrorDescription,
    EventDescription,
    GetAsyncApi,
    ListOperations,
    OperationDescription,
    OperationNotFound,
    OperationSummary,
)


@query
async def list_operations(
    query: ListOperations,  # noqa: ARG001  it has no fields
    *,
    catalogue: Catalogue,
) -> Page[OperationSummary]:
    return _summaries(catalogue)


@query
async def describe_operation(
    query: DescribeOperation, *, catalogue: Catalogue
) -> OperationDescription:
    for operation in catalogue.operations:
        if operation.declared.subject == query.subject:
            return _description(operation)

    raise OperationNotFound(subject=query.subject)


@query
async def get_async_api(query: GetAsyncApi, *, catalogue: Catalogue) -> AsyncApi:
    known = [context.name for context in catalogue.contexts]
    if query.context is not None and query.context not in known:
        raise ContextNotFound(context=query.context, known=known)

    return _document(catalogue, query.context)


@cache
def _summaries(catalogue: Catalogue) -> Page[OperationSummary]:
    return Page[OperationSummary](items=[_summary(operation) for operation in catalogue.operations])


def _summary(operation: type[Operation[Any]]) -> OperationSummary:
    declared = operation.declared
    return OperationSummary(
        subject=declared.subject,
        kind=declared.kind,
        context=declared.context,
        summary=declared.summary,
        errors=[error.type for error in declared.errors],
        emits=[event.fact.type for event in declared.emits],
        transactional=declared.transactional,
    )


@cache
def _description(operation: type[Operation[Any]]) -> OperationDescription:
    declared = operation.declared
    errors = [_error(error, declared=True) for error in declared.errors]
    errors += [_error(error, declared=False) for error in EVERYWHERE]
    return OperationDescription(
        subject=declared.subject,
        kind=declared.kind,
        context=declared.context,
        summary=declared.summary,
        description=inspect.cleandoc(operation.__doc__ or ""),
        request=schema_of(operation),
        reply=schema_of(declared.reply),
        errors=errors,
        events=[_event(event) for event in declared.emits],
        example=example_of(operation),
    )


def _error(error: type[Refusal], *, declared: bool) -> ErrorDescription:
    return ErrorDescription(
        type=error.type,
        title=error.title,
        status=error.status,
        retryable=error.retryable,
        declared=declared,
        body=problem_schema_of(error),
    )


def _event(event: type[Event]) -> EventDescription:
    return EventDescription(
        type=event.fact.type,
        subject=_asyncapi.event_address(event),
        summary=event.fact.summary,
        body=schema_of(event),
    )


@cache
def _document(catalogue: Catalogue, context: str | None) -> AsyncApi:
    return AsyncApi(**_asyncapi.document(catalogue, version("fleetbus"), context))
