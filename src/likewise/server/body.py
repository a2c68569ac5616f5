"""Reading a request's body within its limit."""

from __future__ import annotations

from starlette.requests import Request

from likewise.core.errors import BodyTooLarge, UnsupportedContentType

DRAINED = 8  # times the limit: so much of a body too large is read and thrown away


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body; BodyTooLarge above `limit` bytes.

    A body too large is read to its end, within reason, because a client that is still sending would not read the
    answer.  UnsupportedContentType for a compressed one.
    """
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit and coding == "identity":
            chunks.append(chunk)
        elif size > limit * DRAINED:
            break
    if size > limit:
        raise BodyTooLarge(
            f"the body has more than the {limit:,} bytes that this server takes", remedy="send fewer rows a request"
        )
    if coding != "identity":
        raise UnsupportedContentType(f"the content encoding {coding!r} is not read here", remedy="send it uncompressed")
    return b"".join(chunks)
