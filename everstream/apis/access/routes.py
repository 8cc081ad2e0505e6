"""What browsers use instead of keys: EventSource sends no headers, and a page should not keep a key.

GET    /session    {"required", "signed_in"}: whether this service has keys, and whose this session is
POST   /session    {"key"}: sets a cookie that stands for the key
DELETE /session    sign out
POST   /tickets    {"access": "start"}, {"access": "read", "generation"} or {"access": "follow", "topics"}: for one
                   EventSource
POST   /shares     {"generation", "expires_in_s"} or {"topics", "expires_in_s"}: a link for reading it
"""

import secrets
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlencode

from flask import Blueprint, Response, request

from everstream.apis.access.descriptions import (
    DESCRIPTION,
    Issued,
    SessionState,
    ShareRequest,
    SignIn,
    TicketRequest,
)
from everstream.contract.inputs import parse_body
from everstream.errors import BodyTooLarge, Forbidden, InvalidInput, Unauthorized, UnknownGeneration
from everstream.log.topic_names import check_pattern, is_pattern
from everstream.web.access import signed
from everstream.web.access.credentials import COOKIE
from everstream.web.access.principal import Principal, principal
from everstream.web.access.rules import PUBLIC, READ, allow
from everstream.web.access.signed import MAX_CHARS, MAX_SHARE_S, SESSION_S, TICKET_S, Ticket, TicketKind
from everstream.web.api import Api
from everstream.web.context import app_context
from everstream.web.json_response import small_json
from everstream.web.submission import body, body_bytes, parsed

MAX_SIGN_IN_BYTES = 16 << 10
"""Anyone may send these."""

blueprint = Blueprint("access", __name__)
API = Api(blueprint, description=DESCRIPTION)


@blueprint.get("/session")
@allow(PUBLIC)
def show_session() -> Response:
    credentials = app_context().credentials
    if not credentials.are_required:
        return small_json(SessionState(required=False, signed_in=False))
    try:
        return _state(credentials.authenticate(READ))
    except Unauthorized:
        return small_json(SessionState(required=True, signed_in=False))


@blueprint.post("/session")
@allow(PUBLIC)
def sign_in() -> Response:
    credentials = app_context().credentials
    if (request.content_length or 0) > MAX_SIGN_IN_BYTES or "Transfer-Encoding" in request.headers:
        raise BodyTooLarge(f"the body is over {MAX_SIGN_IN_BYTES} bytes", param="body")
    data = body_bytes()
    given = parsed(parse_body(data), SignIn) if data else SignIn()
    if not credentials.are_required:
        return small_json(SessionState(required=False, signed_in=False))
    # Not from a session, which would renew itself for ever.
    who = credentials.of_token(given.key) if given.key else credentials.of_header()
    for_s = min(SESSION_S, max(0, who.expires_at - int(time.time()))) if who.expires_at else SESSION_S
    cookie = signed.sign(credentials.secret, credentials.session(who, for_s))
    response = _state(who)
    response.set_cookie(COOKIE, cookie, for_s, path="/", secure=True, httponly=True, samesite="Strict")
    return response


@blueprint.delete("/session")
@allow(PUBLIC)
def sign_out() -> Response:
    response = small_json(SessionState(app_context().credentials.are_required, signed_in=False))
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="Strict")
    return response


@blueprint.post("/tickets")
@allow(READ)
def issue_ticket() -> Response:
    wanted = parsed(body(), TicketRequest)
    needed = {"read": "generation", "follow": "topics"}.get(wanted.access)
    for name in ("generation", "topics"):
        if name == needed and not getattr(wanted, name):
            raise InvalidInput(f"a ticket to {wanted.access} needs {name}", param=name)
        if name != needed and getattr(wanted, name):
            raise InvalidInput(f"a ticket to {wanted.access} has no {name}, so leave it out", param=name)
    if wanted.access == "start" and not principal().may("infer"):
        raise Forbidden("a ticket to start needs the scope infer", param="access")
    kind: TicketKind = "start" if wanted.access == "start" else "read"
    return _issued(kind, TICKET_S, _Readable.of(wanted))


@blueprint.post("/shares")
@allow(READ)
def share() -> Response:
    wanted = parsed(body(), ShareRequest)
    if bool(wanted.generation) == bool(wanted.topics):
        raise InvalidInput("a link is for a generation or for topics", param="generation")
    return _issued("share", wanted.expires_in_s, _Readable.of(wanted))


class _Readable(NamedTuple):
    """What a ticket is for: a generation, or topics; without both, one that it starts."""

    generation: str = ""
    topics: Sequence[str] = ()

    @classmethod
    def of(cls, wanted: TicketRequest | ShareRequest) -> "_Readable":
        """Raises UnknownGeneration, InvalidInput, Forbidden."""
        for pattern in wanted.topics or ():
            principal().check_follow(check_pattern(pattern, "topics"))
        return cls(_known(wanted.generation) if wanted.generation else "", wanted.topics or ())

    @property
    def path(self) -> str:
        """With a query that goes on."""
        if self.generation:
            return f"/generations/{self.generation}/events?"
        if len(self.topics) == 1 and not is_pattern(self.topics[0]):
            return f"/topics/{self.topics[0]}?"
        return f"/topics?{urlencode([('topic', each) for each in self.topics])}&" if self.topics else "/stream?"


def _known(generation: str) -> str:
    """The same, if the principal may see it. Raises UnknownGeneration."""
    if app_context().follower.lookup(generation, principal()) is None:
        raise UnknownGeneration
    return generation


def _issued(kind: TicketKind, for_s: int, what: _Readable) -> Response:
    """Raises InvalidInput."""
    credentials = app_context().credentials
    # A share link outlives the session that made it, but not the key.
    of = credentials.session(principal(), MAX_SHARE_S)
    ticket = Ticket(int(time.time()) + for_s, kind, of, secrets.token_hex(16), what.generation, list(what.topics))
    text = signed.sign(credentials.secret, ticket)
    if len(text) > MAX_CHARS:
        raise InvalidInput("these topics' names are too long for one ticket", param="topics")
    return small_json(Issued(text, for_s, f"{what.path}ticket={text}"), HTTPStatus.CREATED)


def _state(who: Principal) -> Response:
    return small_json(SessionState(required=True, signed_in=True, name=who.name, scopes=sorted(who.scopes)))
