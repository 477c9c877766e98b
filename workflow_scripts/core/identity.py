"""Ids, digests and shards of records."""

import hashlib
import json
import unicodedata
import zlib


def normalise(text: str) -> str:
    """Return the text in NFKC with white space folded, so that texts that read alike compare equal."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def digest(value) -> str:
    """Return 16 hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return _hash(text)


def record_id(text: str) -> str:
    """Return the id of a record that comes without one: a digest of its normalised prompt."""
    return _hash(normalise(text))


def _hash(text: str) -> str:
    data = text.encode(errors="surrogatepass")  # a model may write half of a character
    return hashlib.sha256(data).hexdigest()[:16]


def shard_of(record: str, shards: int) -> int:
    """Return the shard of the record with this id.

    The shard follows from the id alone, so adding or deleting other records never moves a record.
    """
    return zlib.crc32(str(record).encode()) % shards
