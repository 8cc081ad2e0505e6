"""Request bodies with a Content-Encoding, as Triton's clients send them. Pure."""

import zlib

from everstream.errors import BodyTooLarge, InvalidInput, UnsupportedEncoding

_WINDOW_BITS = {"gzip": 31, "deflate": 15}
"""zlib's parameter for each format; HTTP's deflate is zlib's own (RFC 9110, section 8.4.1.2)."""


def inflated(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The body without its encoding. Raises InvalidInput, BodyTooLarge, UnsupportedEncoding."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in _WINDOW_BITS:
        allowed = ", ".join(_WINDOW_BITS)
        raise UnsupportedEncoding(
            f"the Content-Encoding {encoding[:40]!r} is not supported; allowed are {allowed}", param="Content-Encoding"
        )
    inflater = zlib.decompressobj(_WINDOW_BITS[name])
    try:
        found = inflater.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise InvalidInput(f"the body is not {name}: {error}", param="body") from None
    if len(found) > max_bytes:
        raise BodyTooLarge(f"the body is over {max_bytes} bytes without its Content-Encoding", param="body")
    if not inflater.eof or inflater.unused_data:
        raise InvalidInput(f"the body is not one whole {name} stream", param="body")
    return found
