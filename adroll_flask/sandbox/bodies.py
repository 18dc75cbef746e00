"""Request bodies as they come over the wire: with a length, or in chunks."""

from __future__ import annotations

import io
from typing import Any


class Body(io.RawIOBase):
    """Exactly ``length`` bytes of a stream."""

    def __init__(self, stream: Any, length: int) -> None:
        self._stream = stream
        self._left = length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            return 0
        data = self._stream.read1(min(len(buffer), self._left))
        if not data:
            raise ConnectionResetError("the body ended early")
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


class Chunks(Body):
    """A chunked body (RFC 9112, section 7.1); trailers are read and dropped."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream, 0)
        self._ended = False

    def readinto(self, buffer: Any) -> int:
        if not self._left and not self._ended:
            self._next_chunk()
        size = super().readinto(buffer)
        if size and not self._left and self._stream.readline(3) not in (b"\r\n", b"\n"):
            raise ConnectionResetError("bad chunk")
        return size

    def _next_chunk(self) -> None:
        size = self._stream.readline(128).partition(b";")[0].strip()
        try:
            self._left = int(size, 16)
        except ValueError as exc:
            raise ConnectionResetError("bad chunk") from exc
        if self._left < 0:
            raise ConnectionResetError("bad chunk")
        if not self._left:
            self._ended = True
            while self._stream.readline(1024) not in (b"\r\n", b"\n", b""):
                pass
