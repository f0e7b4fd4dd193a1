import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def collected() -> Iterator[None]:
    """What a test leaves behind is collected within it, where its own warnings are filtered."""
    yield
    gc.collect()
