import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nats.aio.client import Client

from bus.kit.header_block import UnreadableHeaders, read_block

NAMES = st.text("abcXYZ-09", min_size=1, max_size=8)
VALUES = st.text(max_size=10).map(lambda text: " ".join(text.split()))


class TestReadBlock:
    @given(st.binary(max_size=60))
    @example(b"NATS/1.0 \xff\xff\r\n\r\n")
    @example(b"N")
    @example(b"NATS/1.0")
    @example(b"NATS/1.0 \xc2\xb2\xc2\xb2\xc2\xb2\r\n\r\n")
    def test_any_bytes_are_read(self, block: bytes) -> None:
        found = read_block(block)
        assert found is None or all(
            isinstance(part, str) for pair in found.items() for part in pair
        )

    @given(st.dictionaries(NAMES, VALUES, min_size=1), st.sampled_from(["", " 100", " 503 Away"]))
    async def test_what_is_well_formed_is_read_as_nats_py_reads_it(
        self, headers: dict[str, str], status: str
    ) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        block = f"NATS/1.0{status}\r\n{lines}\r\n".encode()
        found = read_block(block)
        assert not isinstance(found, UnreadableHeaders)
        if not status:
            assert found == await Client()._process_headers(block)
        assert found is not None
        assert headers.items() <= found.items()

    @pytest.mark.parametrize(
        ("block", "headers"),
        [
            (b"NATS/1.0\r\n\r\n", None),
            (b"NATS/1.0 503\r\n\r\n", {"Status": "503"}),
            (
                b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Stream: 7\r\n\r\n",
                {"Status": "100", "Description": "Idle Heartbeat", "Nats-Last-Stream": "7"},
            ),
            (b"NATS/1.0 409 \xff\r\n\r\n", {"Status": "409", "Description": "\ufffd"}),
        ],
    )
    def test_a_status(self, block: bytes, headers: dict[str, str] | None) -> None:
        found = read_block(block)
        assert found == headers
        assert not isinstance(found, UnreadableHeaders)

    @pytest.mark.parametrize(
        "block",
        [
            b"hello",
            b"NATS/1.0",
            b"NATS/1.0\nA: b\n\n",
            b"NATS/1.0 abc\r\n\r\n",
            b"NATS/1.0 12345\r\n\r\n",
            b"NATS/1.0 \xff\xff\r\n\r\n",
            b"NATS/1.0\r\nno colon\r\n\r\n",
            b"NATS/1.0\r\n\xff: x\r\n\r\n",
            b"NATS/1.0 503\r\nno colon\r\n\r\n",
            b"NATS/1.0\r\n" + b"H: v\r\n" * 11_000 + b"\r\n",
        ],
    )
    def test_what_is_no_header_is_known_as_such(self, block: bytes) -> None:
        found = read_block(block)
        assert isinstance(found, UnreadableHeaders)
        assert found
