"""How a journal file looks: its name, its header, its frames; no file is opened here.

A file is named ``<created, ms>-<pid>-<token>.journal`` and begins with a line of text::

    adroll-journal 1 {"created": ..., "pid": ..., "token": ..., ...} <checksum>

Frames follow: marker, length, checksum, record. The marker and the checksum's first value are the
file's random token, so that no record's content can pass for a frame: where a frame is damaged,
the next marker is where reading goes on. The token is in the name too, for a damaged header.
"""

from __future__ import annotations

import json
import os
import re
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from adroll_flask.interruptions import let_through

#: What this package writes, and what it reads. A version is new when an older reader would read
#: such a file wrongly; further keys in the header are not.
VERSION: Final = 1
READABLE: Final = frozenset({1})
SUFFIX: Final = ".journal"
#: A file that has no header yet.
UNFINISHED: Final = ".new"
#: Bytes of one record.
MAX_RECORD: Final = 8 << 20
HEADER_LIMIT: Final = 1024

FRAME: Final = struct.Struct("<4sII")
_NAME: Final = re.compile(r"(\d{13,15})-(\d{1,10})-([0-9a-f]{16})")
_HEADER: Final = re.compile(rb"adroll-journal (\d{1,6}) (.*) ([0-9a-f]{8})\n", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself.

    :param created: milliseconds since the epoch, by the writer's clock; grows from file to file of
        one writer, whatever the clock does.
    :param token: eight random bytes in hex; the first four are the marker.
    :param host: the boot of the host that wrote it (see :func:`host_identity`).
    :param namespace: the writer's PID namespace, in which *pid* means something; 0: unknown.
    :param locked: the writer held a lock on it from before its name was there.
    :param size: bytes of the header; 0: it is damaged, and the values are the name's.
    """

    created: int
    pid: int
    token: str
    host: str = ""
    namespace: int = 0
    locked: bool = False
    version: int = VERSION
    size: int = 0

    @property
    def name(self) -> str:
        return f"{self.created:013d}-{self.pid}-{self.token}"

    @property
    def marker(self) -> bytes:
        return bytes.fromhex(self.token)[:4]

    @property
    def seed(self) -> int:
        return int(self.token[8:], 16)


def encode_header(header: Header) -> bytes:
    """The first line of a file."""
    values = {
        "created": header.created,
        "pid": header.pid,
        "token": header.token,
        "host": header.host,
        "namespace": header.namespace,
        "locked": header.locked,
    }
    line = f"adroll-journal {header.version} {json.dumps(values)}".encode()
    return line + b" %08x\n" % zlib.crc32(line)


def decode_header(data: bytes) -> Header | None:
    """The header that *data* begins with; ``None``: there is none that is whole."""
    line, end, _ = data[:HEADER_LIMIT].partition(b"\n")
    match = _HEADER.fullmatch(line + end)
    if match is None or zlib.crc32(line[:-9]) != int(match[3], 16):
        return None
    version = int(match[1])
    try:
        values: Mapping[str, Any] = json.loads(match[2])
        return Header(
            created=int(values["created"]),
            pid=int(values["pid"]),
            token=f"{int(values['token'], 16):016x}",
            host=str(values["host"]),
            namespace=int(values["namespace"]),
            locked=bool(values["locked"]),
            version=version,
            size=len(line) + 1,
        )
    except (ValueError, KeyError, TypeError):
        # A later version may keep other things here; that it is later is all that counts then.
        return None if version in READABLE else Header(0, 0, "0" * 16, version=version)


def header_of_name(name: str) -> Header | None:
    """What a file's name (without suffix) says; ``None``: it is no journal file's."""
    match = _NAME.fullmatch(name)
    return None if match is None else Header(int(match[1]), int(match[2]), match[3])


def frame(record: bytes, marker: bytes, seed: int) -> bytes:
    """What a file with this marker and seed holds of *record*."""
    length = len(record)
    return FRAME.pack(marker, length, zlib.crc32(record, seed ^ length)) + record


def frame_all(records: Iterable[bytes], token: str) -> bytes:
    """What the file with the random *token* holds of *records*."""
    header = Header(0, 0, token)
    marker, seed = header.marker, header.seed
    return b"".join(frame(record, marker, seed) for record in records)


@dataclass(slots=True)
class Frames:
    """What :func:`split` found.

    :param damaged: start and end of each stretch that is no whole frame.
    :param end: where the next reading begins.
    :param ended: ``False``: *data* ends in the middle of something, or a limit was reached.
    """

    records: list[bytes] = field(default_factory=list)
    damaged: list[tuple[int, int]] = field(default_factory=list)
    end: int = 0
    ended: bool = False


def split(
    data: bytes,
    at: int,
    header: Header,
    *,
    max_records: int,
    last: bool,
    damage: Literal["skip", "stop"] = "skip",
) -> Frames:
    """The records in *data* from *at* on.

    :param last: *data* reaches to the end of the file.
    :param damage: what to do at bytes that are no whole frame and not the torn end either.
    """
    marker, seed, size = header.marker, header.seed, len(data)
    found = Frames(end=at)
    while len(found.records) < max_records:
        whole = False
        stop = at
        if size - at >= FRAME.size:
            mark, length, checksum = FRAME.unpack_from(data, at)
            stop = at + FRAME.size + length
            if mark == marker and length <= MAX_RECORD:
                if stop <= size:
                    whole = True
                    record = data[at + FRAME.size : stop]
                    if zlib.crc32(record, seed ^ length) == checksum:
                        found.records.append(record)
                        found.end = at = stop
                        continue
                elif not last:
                    return found
        elif not last or at == size:
            found.ended = last
            return found
        following = data.find(marker, at + 1)
        if following < 0 and not last:
            return found
        if following < 0 and not whole:
            found.ended = True  # torn: what comes after the last whole frame was never acknowledged
            return found
        if damage == "stop":
            return found
        stop = following if following >= 0 else stop
        found.damaged.append((at, stop))
        found.end = at = stop
    return found


def host_identity() -> str:
    """One boot of one host: only there does a PID or a lock of a local disk mean something.

    Imports nothing, no codec either: a thread that imports while another one forks would leave the
    child a lock that nobody releases.
    """
    try:
        file = os.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY)
    except OSError as exc:
        let_through(exc)
        name = os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
        return f"node:{name[:100]}"
    try:
        return os.read(file, 36).decode()
    finally:
        os.close(file)


def pid_namespace() -> int:
    """The PID namespace of this process; 0 where there is no such thing."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError as exc:
        let_through(exc)
        return 0
