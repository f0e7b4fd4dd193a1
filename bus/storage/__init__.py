"""What queries are written with: tables, entities, lists."""

from bus.storage.companions import CompanionRow
from bus.storage.deletion import lock_for_deletion, remove
from bus.storage.driver import Compiled, compiled, execute, fetch, numbered
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
from bus.storage.keyed import get_by, get_locked_by, lock_by, lock_or_reserve
from bus.storage.paging import Listing
from bus.storage.partitions import Daily
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
    "CompanionRow",
    "Compiled",
    "Daily",
    "EntityRow",
    "KeyRing",
    "Listing",
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
    "is_set",
    "lets_go",
    "load",
    "lock",
    "lock_by",
    "lock_for_deletion",
    "lock_or_reserve",
    "numbered",
    "one_of",
    "remove",
    "require_fitting",
    "room_for_page",
    "save",
    "table",
]
