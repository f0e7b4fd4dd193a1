"""What queries are written with: tables, entities, lists."""

from bus.storage.companions import CompanionRow
from bus.storage.deletion import lock_for_deletion, remove, remove_in_steps
from bus.storage.driver import Compiled, compiled, execute, fetch, numbered, part, text_of
from bus.storage.entities import (
    add,
    columns,
    entity_from,
    exists,
    get,
    get_locked,
    load,
    lock,
    save,
)
from bus.storage.filters import contains, either, equal, is_set
from bus.storage.graph import Graph, Order, pairs_of
from bus.storage.keyed import get_by, get_locked_by, lock_by, lock_or_reserve
from bus.storage.locks import AdvisoryLock
from bus.storage.own.deletions import is_deleting
from bus.storage.paging import Listing
from bus.storage.partitions import Daily
from bus.storage.presence import gone_with, present
from bus.storage.sealed import KeyRing, SealedRow
from bus.storage.sizes import require_fitting, room_for_page
from bus.storage.tables import (
    DERIVED,
    INSERTED,
    TABLES,
    EntityRow,
    VersionedRow,
    lets_go,
    one_of,
    table,
)

__all__ = [
    "DERIVED",
    "INSERTED",
    "TABLES",
    "AdvisoryLock",
    "CompanionRow",
    "Compiled",
    "Daily",
    "EntityRow",
    "Graph",
    "KeyRing",
    "Listing",
    "Order",
    "SealedRow",
    "VersionedRow",
    "add",
    "columns",
    "compiled",
    "contains",
    "either",
    "entity_from",
    "equal",
    "execute",
    "exists",
    "fetch",
    "get",
    "get_by",
    "get_locked",
    "get_locked_by",
    "gone_with",
    "is_deleting",
    "is_set",
    "lets_go",
    "load",
    "lock",
    "lock_by",
    "lock_for_deletion",
    "lock_or_reserve",
    "numbered",
    "one_of",
    "pairs_of",
    "part",
    "present",
    "remove",
    "remove_in_steps",
    "require_fitting",
    "room_for_page",
    "save",
    "table",
    "text_of",
]
