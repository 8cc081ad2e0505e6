"""The examples in `examples/topics`: pages that use EventSource and nothing else, and what publishes to them.

GET /examples/                 all of them
GET /examples/<name>           one of them
GET /examples/source/<name>    its page, or a file beside it, as text

The pages hold nobody's data. What they show comes from `/topics`, which asks for a key if the service has keys.
"""

from flask import Blueprint, Response

from everstream.apis.gallery.descriptions import DESCRIPTION
from everstream.errors import UnknownExample
from everstream.settings import PROJECT_ROOT
from everstream.web.access.rules import PUBLIC, allow
from everstream.web.api import Api
from everstream.web.pages import html, kept_text, policy_with_scripts_of

FOLDER = PROJECT_ROOT / "examples" / "topics"
SHOWN = (".html", ".py", ".sh")

# Only these names can be asked for, so no path leads anywhere else.
FILES = {path.name: path.read_bytes() for path in sorted(FOLDER.iterdir()) if path.suffix in SHOWN}
POLICIES = {name: policy_with_scripts_of(text) for name, text in FILES.items() if name.endswith(".html")}

blueprint = Blueprint("gallery", __name__)
API = Api(blueprint, description=DESCRIPTION)


@blueprint.get("/examples/")
@allow(PUBLIC)
def index() -> Response:
    return page("index")


@blueprint.get("/examples/<name>")
@allow(PUBLIC)
def page(name: str) -> Response:
    file = f"{name}.html"
    if file not in POLICIES:
        raise UnknownExample
    return html(FILES[file], POLICIES[file])


@blueprint.get("/examples/source/<name>")
@allow(PUBLIC)
def source(name: str) -> Response:
    if name not in FILES:
        raise UnknownExample
    return kept_text(FILES[name], "text/plain")
