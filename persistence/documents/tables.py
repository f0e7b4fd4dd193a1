"""The tables of ``documents``."""

from typing import Any

from sqlalchemy import Index, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from bus.storage import EntityRow, table
from contracts.documents import generations

SCHEMA = {"schema": "documents"}


class Generation(EntityRow, entity=generations.Generation):
    __tablename__ = "generations"
    __table_args__ = (
        Index("ix_generations__repo_url_created_at", "repo_url", "created_at", "id"),
        Index("ix_generations__created_at_id", "created_at", "id"),
        SCHEMA,
    )

    repo_url: Mapped[str]
    pr_url: Mapped[str | None]
    is_dry_run: Mapped[bool] = mapped_column(server_default=text("false"))
    content: Mapped[str]
    sources: Mapped[Any] = mapped_column(JSONB, server_default=text("'[]'"))


generation = table(Generation)
