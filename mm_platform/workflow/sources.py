"""Source files: their identity, and their text in chunks of whole lines.

Belongs here: plain or gzip bytes from disk, checksums. Does not belong here: what the text means (`decode`).
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import msgspec

from mm_platform.core.errors import DataError

CHUNK_BYTES: Final = 4 << 20
# a line longer than this is no line of market data (a 5,000-level snapshot has some 400 kB)
MAX_LINE_BYTES: Final = 64 << 20
_GZIP: Final = b"\x1f\x8b"


class SourceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, order=True):
    """A file that market data came from: its name (no folder), the SHA-256 and size of its bytes as stored."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Source:
    """A source to be read."""

    path: Path
    file: SourceFile


def identify(path: Path) -> Source:
    """Checksum and size of a file.

    Raises
    ------
    DataError
        Missing, not a file, or empty.
    """
    if not path.is_file():
        raise DataError(f"{path}: {'a folder' if path.is_dir() else 'no such file'}; expected a raw capture or CSV, plain or gz")
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    if not size:
        raise DataError(f"{path}: the file is empty; record or download it again")
    return Source(path, SourceFile(path.name, digest.hexdigest(), size))


def read_lines(path: Path, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """The text of a plain or gzip file in chunks of whole lines; the last line may lack its line feed.

    Raises
    ------
    DataError
        The gzip stream ends early or is damaged; a line is longer than `MAX_LINE_BYTES`. What was readable has been given out before.
    """
    rest = b""
    for block in _blocks(path, chunk_bytes):
        text = rest + block if rest else block
        end = text.rfind(b"\n") + 1
        rest = text[end:]
        if len(rest) > MAX_LINE_BYTES:
            raise DataError(f"{path}: a line is longer than {MAX_LINE_BYTES >> 20} MB; expected lines of text")
        if end:
            yield text[:end] if rest else text
    if rest:
        yield rest


def _blocks(path: Path, chunk_bytes: int) -> Iterator[bytes]:
    with path.open("rb") as raw:
        packed = raw.read(2) == _GZIP
        raw.seek(0)
        if not packed:
            while block := raw.read(chunk_bytes):
                yield block
            return
        from isal import igzip

        got = 0
        try:
            with igzip.IGzipFile(fileobj=raw, mode="rb") as file:
                while block := cast(bytes, file.read(chunk_bytes)):
                    got += len(block)
                    yield block
        except (EOFError, zlib.error, OSError) as err:
            raise DataError(
                f"{path}: the gzip stream is truncated or damaged after {got} bytes of text ({err}); get the file again, or recompress what "
                "is readable (gzip -dc FILE | gzip > NEW)"
            ) from None
