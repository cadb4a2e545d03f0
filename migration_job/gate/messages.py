"""What the gate makes of a message's head: h11 reads and writes them, this is what it leaves open.

A request that two programs could read in two ways is refused; what is passed on is rewritten.
"""

from __future__ import annotations

import re

import h11

from migration_job.gate.limits import HEAD_BYTES, HEADERS

SAFE = {b"GET", b"HEAD", b"OPTIONS"}
"""What may be sent again (RFC 9110, 9.2.1), where a kept connection turns out to be closed."""

EVENTS = b"text/event-stream"

_HOP = {
    *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade"),
    *(b"http2-settings", b"transfer-encoding"),
}
_LASTING = {b"host", b"content-length", b"transfer-encoding", b"authorization", b"cookie"}
"""What no `Connection` header takes out of a message."""
_HOP_OF_REQUEST = _HOP | {b"host"}
_MORE_THAN_A_HEAD = {b"content-length", b"transfer-encoding", b"upgrade"}
_NOT_IN_TRAILERS = _HOP | _LASTING | {b"content-type", b"content-encoding", b"trailer", b"expect"}

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)

_REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}

Pairs = list[tuple[bytes, bytes]]
Values = dict[bytes, bytes]


class Refused(Exception):
    """The gate's own answer: a status and a sentence. ``again``: in how many seconds."""

    def __init__(self, status: int, text: str, *, again: int | None = None) -> None:
        super().__init__(text)
        self.status = status if status in _REASONS else 400
        self.text = text
        self.again = again

    def encode(self, method: bytes = b"GET") -> bytes:
        """The answer, after which the connection closes."""
        body = f"{self.text}\n".encode()
        again = f"Retry-After: {self.again}\r\n" if self.again is not None else ""
        head = (
            f"HTTP/1.1 {self.status} {_REASONS[self.status]}\r\nContent-Type: text/plain\r\n"
            f"{again}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + (b"" if method == b"HEAD" else body)


def unreadable(error: h11.RemoteProtocolError) -> Refused:
    """What h11 says of a client's bytes, without the bytes."""
    return Refused(error.error_status_hint, str(error).partition(":")[0])


def onward(request: h11.Request, authority: bytes) -> h11.Request:
    """The request as it goes to the application; ``authority`` names that one where the request,
    of HTTP/1.0, names none. Raises Refused."""
    pairs = request.headers.raw_items()
    values = lowered(pairs)
    _check_size(pairs, len(request.target))
    if request.http_version not in (b"1.0", b"1.1"):
        raise Refused(505, "expected HTTP/1.0 or 1.1")
    coded = b"transfer-encoding" in values
    if coded and (b"content-length" in values or request.http_version == b"1.0"):
        raise Refused(400, "a body with two lengths")
    if _CONTROL.search(b" ".join([value for _, value in pairs])):
        raise Refused(400, "a control character in a header")
    target, host = _target(request, values.get(b"host"))
    if _HOST.fullmatch(host if host is not None else authority) is None:
        raise Refused(400, "a Host that is none")
    words = _words(pairs) if b"connection" in values else set()
    kept = [(b"Host", authority if host is None else host)]
    kept += _without(pairs, _HOP_OF_REQUEST | (words - _LASTING))
    if coded:
        kept.append((b"Transfer-Encoding", b"chunked"))
    upgrade = values.get(b"upgrade") if b"upgrade" in words else None
    if upgrade is not None and upgrade.lower() != b"h2c":
        kept += [(b"Connection", b"upgrade"), (b"Upgrade", upgrade)]
    return h11.Request(method=request.method, target=target, headers=kept)


def is_safe(request: h11.Request) -> bool:
    """Whether it may be sent twice: it asks for nothing to be done, and has no body."""
    if request.method not in SAFE:
        return False
    return not lowered(request.headers.raw_items()).keys() & _MORE_THAN_A_HEAD


def _check_size(pairs: Pairs, rest: int) -> None:
    size = rest + sum([len(name) + len(value) + 4 for name, value in pairs])
    if size > HEAD_BYTES or len(pairs) > HEADERS:
        raise Refused(431, f"a head of more than {HEAD_BYTES:,} bytes or {HEADERS} lines")


def _target(request: h11.Request, host: bytes | None) -> tuple[bytes, bytes | None]:
    """The target from its first slash on, and the host that it names."""
    target = request.target
    if request.method == b"CONNECT":
        raise Refused(501, "CONNECT is for proxies")
    if target.startswith(b"/") or (target == b"*" and request.method == b"OPTIONS"):
        return target, host
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None or not absolute[1] or b"#" in target:
        raise Refused(400, "a target that is no path")
    rest = absolute[2]
    return (rest if rest.startswith(b"/") else b"/" + rest), absolute[1]


def answer_onward(response: h11.Response, values: Values, *, close: bool) -> h11.Response:
    """The answer, whose headers :func:`lowered` are ``values``, as it goes to the client. Raises
    Refused."""
    if b"transfer-encoding" in values and b"content-length" in values:
        raise Refused(502, "the application's answer has two lengths")
    headers = _hopped(response.headers.raw_items())
    if close:
        headers.append((b"Connection", b"close"))
    return h11.Response(status_code=response.status_code, headers=headers, reason=response.reason)


def between(response: h11.InformationalResponse) -> h11.InformationalResponse:
    """An answer before the answer; with the word of what the connection becomes, if it does."""
    pairs = response.headers.raw_items()
    headers = _hopped(pairs)
    if response.status_code == 101:
        headers.append((b"Connection", b"upgrade"))
        headers += [pair for pair in pairs if pair[0].lower() == b"upgrade"]
    return h11.InformationalResponse(
        status_code=response.status_code, headers=headers, reason=response.reason
    )


def end_of(message: h11.EndOfMessage) -> h11.EndOfMessage:
    """A body's end with those of its trailers that change nothing of how it is read."""
    if not message.headers:
        return message
    trailers = [
        (name, value)
        for name, value in message.headers.raw_items()
        if name.lower() not in _NOT_IN_TRAILERS and not _CONTROL.search(value)
    ]
    return h11.EndOfMessage(headers=trailers)


def is_events(values: Values) -> bool:
    """Whether it is a stream of events, which ends only when somebody goes."""
    return values.get(b"content-type", b"").lower().startswith(EVENTS)


def lowered(pairs: Pairs) -> Values:
    """The headers by their names in lower case; the last of each name."""
    return {name.lower(): value for name, value in pairs}


def _words(pairs: Pairs) -> set[bytes]:
    """What the `Connection` headers list, in lower case."""
    found: set[bytes] = set()
    for name, value in pairs:
        if name.lower() == b"connection":
            found.update([word.strip() for word in value.lower().split(b",")])
    return found


def _hopped(pairs: Pairs) -> Pairs:
    """Without what was for this hop alone."""
    return _without(pairs, _HOP | (_words(pairs) - _LASTING))


def _without(pairs: Pairs, dropped: set[bytes]) -> Pairs:
    return [pair for pair in pairs if pair[0].lower() not in dropped]
