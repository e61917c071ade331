"""The codecs of batches, byte by byte: frames that announce much and hold little, which no library writes."""

import struct
import zlib

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4


def gzip(content, level=9):
    """A whole member."""
    press = zlib.compressobj(level, zlib.DEFLATED, 31)
    return press.compress(content) + press.flush()


def snappy(content):
    """A block in the framing of the Java library, of up to 60 bytes that are not compressed."""
    block = bytes([len(content), len(content) - 1 << 2]) + content
    return b"\x82SNAPPY\0" + struct.pack(">iii", 1, 1, len(block)) + block


def lz4(content):
    """A frame with blocks of up to 4 MiB, and one of up to 200 bytes in it."""
    token = bytes([min(len(content), 15) << 4]) + (bytes([len(content) - 15]) if len(content) >= 15 else b"")
    descriptor = b"\x60\x70"
    head = struct.pack("<I", 0x184D2204) + descriptor + bytes([xxh32(descriptor) >> 8 & 0xFF])
    return head + struct.pack("<I", len(token + content)) + token + content + bytes(4)


def zstd(content, zeros=0, window=27):
    """A frame with a window of so many bits, and behind its content so many zeros."""
    pieces = [(content, 0, len(content))]
    for left in range(zeros, 0, -(128 << 10)):
        pieces.append((b"\0", 1, min(left, 128 << 10)))
    last = len(pieces) - 1
    blocks = [struct.pack("<I", length << 3 | kind << 1 | (at == last))[:3] + data for at, (data, kind, length) in enumerate(pieces)]
    return struct.pack("<I", 0xFD2FB528) + bytes([0, window - 10 << 3]) + b"".join(blocks)


def xxh32(data):
    """XXH32 of fewer than four bytes."""
    word = 0xFFFFFFFF
    value = 374761393 + len(data) & word
    for byte in data:
        value = value + byte * 374761393 & word
        value = (value << 11 | value >> 21) * 2654435761 & word
    value = (value ^ value >> 15) * 2246822519 & word
    value = (value ^ value >> 13) * 3266489917 & word
    return value ^ value >> 16
