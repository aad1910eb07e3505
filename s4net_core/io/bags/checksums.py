"""Checksums of MCAP files: the writer of rosbags leaves them 0, which stands for "not known"."""

import struct
from binascii import crc32
from pathlib import Path

from s4net_core.errors import CaptureError

MAGIC = b"\x89MCAP0\r\n"
_RECORD = struct.Struct("<BQ")
"""Opcode and length of every record."""
_CHUNK = struct.Struct("<24xII")
"""Beginning of a chunk: two times and a size, the checksum of the uncompressed content, the compression's length."""
_CRC_AT = 24
_CHUNK_OPCODE = 0x06


def add_checksums(path: Path) -> None:
    """Write the checksum of every chunk of a whole, uncompressed MCAP file into it; readers then notice a flipped bit.

    Raises:
        CaptureError: it is compressed.
        OSError: it cannot be read or written.
    """
    size = path.stat().st_size
    with path.open("r+b") as file:
        at = len(MAGIC)
        while at + _RECORD.size <= size:  # what follows the last record is the magic again, which is shorter
            file.seek(at)
            opcode, length = _RECORD.unpack(file.read(_RECORD.size))
            begin = at + _RECORD.size
            if opcode == _CHUNK_OPCODE:
                _, compression = _CHUNK.unpack(file.read(_CHUNK.size))
                if compression:
                    raise CaptureError(f"{path} is compressed: checksums are of uncompressed chunks")
                header = _CHUNK.size + 8  # the size of the content stands before it
                file.seek(begin + header)
                checksum = crc32(file.read(length - header))
                file.seek(begin + _CRC_AT)
                file.write(struct.pack("<I", checksum))
            at = begin + length
