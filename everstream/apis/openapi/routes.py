"""What the service's HTTP API is.

GET /openapi.json    an OpenAPI 3.1 document of all routes
GET /docs            the same as a page
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from flask import Blueprint, Response, current_app, render_template

from everstream import __version__
from everstream.apis.openapi.document import Route, Served, document
from everstream.contract.inlining import JsonSchema
from everstream.errors import ErrorBody
from everstream.log.entries import encode_json
from everstream.web.api import Api
from everstream.web.context import app_context
from everstream.web.description import READ, Answer, ApiDescription, Description
from everstream.web.pages import html

DESCRIPTION = ApiDescription(
    "This document.",
    {
        "show_json": Description("This document", {200: Answer("An OpenAPI document.", JsonSchema)}, READ),
        "show_page": Description("This document as a page", {200: Answer("The page.", media="text/html")}, READ),
    },
    ErrorBody,
)
blueprint = Blueprint("openapi", __name__)
API = Api(blueprint, description=DESCRIPTION)


@blueprint.get("/openapi.json")
def show_json() -> Response:
    return Response(_documents.current().text, mimetype="application/json")


@blueprint.get("/docs")
def show_page() -> Response:
    return html(_documents.current().page)


class _Document:
    """`made_of`: the arguments of `document`."""

    def __init__(self, made_of: tuple[Any, ...]) -> None:
        self.made_of = made_of
        self._made = document(*made_of)
        self.text = encode_json(self._made)

    @cached_property
    def page(self) -> str:
        return render_template("docs.html", document=self._made, json=lambda value: encode_json(value).decode())


class _Documents:
    """Keeps the last document: all streams of the process wait while one is made, for 30 ms, and its page for 100."""

    def __init__(self) -> None:
        self._last: _Document | None = None

    def current(self) -> _Document:
        made_of = (_apis(), list(_routes()), _served())
        if self._last is None or self._last.made_of != made_of:
            self._last = _Document(made_of)
        return self._last


_documents = _Documents()


def _apis() -> dict[str, ApiDescription]:
    return {api.blueprint.name: api.description for api in app_context().apis if api.description}


def _served() -> Served:
    context = app_context()
    names = context.models.names()
    found = {name: model.inputs for name in names if (model := context.models.find(name))}
    return Served(__version__, tuple(names), found, tuple(context.formats), context.settings.max_prompt_chars)


def _routes() -> Iterator[Route]:
    for rule in current_app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield Route(rule.rule, method, rule.endpoint)
