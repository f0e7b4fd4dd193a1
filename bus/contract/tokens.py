"""Fields that hold a token: ``SessionToken = Annotated[Token, TokenOf("fbs")]``."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from bus.contract.fields import FieldValueError
from bus.contract.refusals import DeclarationError
from bus.contract.sensitive import Mark
from bus.kit.tokens import SHAPE, Token, parse_token

_PREFIX = re.compile(r"[a-z][a-z0-9]{1,9}")


class TokenOf(Mark):
    """Marks a field that holds a token with this prefix, which is as sensitive as any secret."""

    def __init__(self, prefix: str) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise DeclarationError(f"{prefix!r} is no prefix of a token: a short word like fbs")
        self.prefix = prefix

    def __get_pydantic_core_schema__(self, _: Any, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self._read, serialization=core_schema.plain_serializer_function_ser_schema(_text)
        )

    def __get_pydantic_json_schema__(
        self, _: CoreSchema, __: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        pattern = f"^{self.prefix}_{SHAPE}$"
        return {"type": "string", "pattern": pattern, "format": "password", "x-sensitive": True}

    def _read(self, value: Any) -> Token:
        if isinstance(value, Token) and value.prefix == self.prefix:
            return value
        token = parse_token(self.prefix, value) if isinstance(value, str) else None
        if token is None:
            raise FieldValueError(f"must be a token, {self.prefix}_<id>_<secret>")
        return token


def token_fields(model: type[BaseModel]) -> list[str]:
    """The names of the fields that hold a token, whoever sends the request."""
    return [
        name
        for name, field in model.model_fields.items()
        if field.is_required() and any(isinstance(mark, TokenOf) for mark in field.metadata)
    ]


def _text(token: Token) -> str:
    return token.text
