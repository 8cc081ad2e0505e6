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
from everstream.apis.openapi.fields import ModelInputs
from everstream.contract.inlining import JsonSchema
from everstream.errors import ErrorBody, TooManyStreams
from everstream.log.entries import encode_json
from everstream.web.access.rules import PUBLIC, allow, rule_of
from everstream.web.api import Api
from everstream.web.context import app_context
from everstream.web.description import READ, Answer, ApiDescription, Description, failures
from everstream.web.pages import html, kept_text

_FAILURES = (*READ, *failures(TooManyStreams))
DESCRIPTION = ApiDescription(
    "This document.",
    {
        "show_json": Description(
            "This document", {200: Answer("An OpenAPI document.", JsonSchema)}, failures=_FAILURES
        ),
        "show_page": Description(
            "This document as a page", {200: Answer("The page.", media="text/html")}, failures=_FAILURES
        ),
    },
    ErrorBody,
)
EXTENSION = "everstream.openapi"
"""Where the application keeps its last document."""
blueprint = Blueprint("openapi", __name__)
API = Api(blueprint, description=DESCRIPTION)


@blueprint.get("/openapi.json")
@allow(PUBLIC)
def show_json() -> Response:
    return kept_text(_current().text, "application/json")


@blueprint.get("/docs")
@allow(PUBLIC)
def show_page() -> Response:
    return html(_current().page)


class _Document:
    """`made_of`: the arguments of `document`."""

    def __init__(self, made_of: tuple[Any, ...]) -> None:
        self.made_of = made_of
        self._made = document(*made_of)
        self.text = encode_json(self._made)

    @cached_property
    def page(self) -> bytes:
        page = render_template("docs.html", document=self._made, json=lambda value: encode_json(value).decode())
        return page.encode()


def _current() -> _Document:
    """The last document if nothing has changed: all streams wait while one is made, for 30 ms, and its page for 100."""
    made_of = (_apis(), list(_routes()), _served())
    last: _Document | None = current_app.extensions.get(EXTENSION)
    if last is None or last.made_of != made_of:
        last = current_app.extensions[EXTENSION] = _Document(made_of)
    return last


def _apis() -> dict[str, ApiDescription]:
    return {api.blueprint.name: api.description for api in app_context().apis if api.description}


def _served() -> Served:
    models, settings = app_context().models, app_context().settings
    found = {name: model.inputs if (model := models.find(name)) else None for name in models.names()}
    inputs = ModelInputs(found, models.has_several, settings.max_prompt_chars)
    return Served(__version__, inputs, tuple(app_context().formats), app_context().credentials.are_required)


def _routes() -> Iterator[Route]:
    for rule in current_app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield Route(rule.rule, method, rule.endpoint, rule_of(current_app.view_functions[rule.endpoint]))
