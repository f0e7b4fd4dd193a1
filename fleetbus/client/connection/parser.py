"""The protocol of NATS as the server writes it, read line by line.

nats-py takes control lines apart with patterns that know more kinds of blanks than the server
does: a subject with a form feed in it is a protocol error to it. And whatever goes wrong with one
message ends its reader. Here a message is a message, whatever is in it.
"""

from __future__ import annotations

import json
from typing import Any, Final

from nats.errors import ProtocolError
from nats.protocol.parser import AWAITING_CONTROL_LINE, AWAITING_MSG_PAYLOAD, Parser

LONGEST_LINE: Final = 4 * 1024 * 1024
"""Bytes of a control line; the longest are INFO of large clusters."""

_END: Final = b"\r\n"
_MESSAGES: Final = (b"MSG ", b"HMSG ")


class SteadyParser(Parser):
    """Reads what the server writes; only what is no protocol at all raises ``ProtocolError``."""

    async def parse(self, data: bytes = b"") -> None:
        """Take what arrived, and have the client process each message that is whole."""
        self.buf.extend(data)
        # Whatever is processed may reset the parser, for the connection has ended.
        while buf := self.buf:
            if self.state == AWAITING_CONTROL_LINE:
                end = buf.find(_END)
                if end < 0:
                    if len(buf) > LONGEST_LINE:
                        raise ProtocolError
                    return
                line = bytes(buf[:end])
                del buf[: end + 2]
                if line.startswith(_MESSAGES):
                    self._message(line.split(b" "))
                else:
                    await self._control(line)
            elif len(buf) < self.needed + 2:
                return
            else:
                try:
                    await self.nc._process_msg(*self._arguments(buf))  # noqa: SLF001  its own parser
                except Exception as error:  # noqa: BLE001  whatever it is, the next one is read
                    await self.nc._error_cb(error)  # noqa: SLF001  as above

    def _arguments(self, buf: bytearray) -> tuple[int, bytes, bytes, bytes, bytes | None]:
        """The message that has arrived; the next thing to come is a control line."""
        headers, whole, argument = self.header_needed, self.needed, self.msg_arg
        block = bytes(buf[:headers]) if headers else None
        body = bytes(buf[headers:whole])
        del buf[: whole + 2]
        self.state = AWAITING_CONTROL_LINE
        return argument["sid"], argument["subject"], argument["reply"], body, block

    async def _control(self, line: bytes) -> None:
        match line.partition(b" ")[0]:
            case b"PING":
                await self._guarded(self.nc._process_ping())  # noqa: SLF001  its own parser
            case b"PONG":
                await self._guarded(self.nc._process_pong())  # noqa: SLF001  as above
            case b"INFO":
                await self._guarded(self._info(line[5:]))
            case b"-ERR":
                text = line[5:].decode("utf-8", "replace")
                await self._guarded(self.nc._process_err(text))  # noqa: SLF001  as above
            case b"+OK":
                pass
            case _:
                raise ProtocolError

    def _message(self, words: list[bytes]) -> None:
        """``MSG subject sid [reply] size``, ``HMSG subject sid [reply] header-size size``."""
        sizes = 1 if words[0] == b"MSG" else 2
        try:
            subject, sid, *reply = words[1:-sizes]
            needed = int(words[-1])
            header_needed = int(words[-2]) if sizes == 2 else 0
            self.msg_arg = {
                "subject": subject,
                "sid": int(sid),
                "reply": reply[0] if reply else b"",
            }
        except ValueError:
            raise ProtocolError from None
        if len(reply) > 1 or not 0 <= header_needed <= needed:
            raise ProtocolError
        self.needed, self.header_needed = needed, header_needed
        self.state = AWAITING_MSG_PAYLOAD

    async def _info(self, text: bytes) -> None:
        told = json.loads(text)
        if isinstance(told, dict):
            await self.nc._process_info(told)  # noqa: SLF001  its own parser

    async def _guarded(self, work: Any) -> None:
        """An error with one message is reported, and the next one is read."""
        try:
            await work
        except Exception as error:  # noqa: BLE001  whatever it is, the reader goes on
            await self.nc._error_cb(error)  # noqa: SLF001  its own parser
