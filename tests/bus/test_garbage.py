"""Garbage is looked for again after what makes much that stays."""

import gc

import pytest

from bus.kit.garbage import uncollected


class TestUncollected:
    def test_looks_for_none_in_the_block(self) -> None:
        assert gc.isenabled()
        with uncollected():
            assert not gc.isenabled()
        assert gc.isenabled()

    def test_looks_again_after_an_error(self) -> None:
        with pytest.raises(LookupError), uncollected():
            raise LookupError
        assert gc.isenabled()

    def test_leaves_it_off_where_it_was(self) -> None:
        with uncollected():
            with uncollected():
                pass
            assert not gc.isenabled()
