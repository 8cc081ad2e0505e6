"""The OpenAPI document and its page, from the application itself. `stack/test_openapi.py` sends requests by it."""

import functools
import re
from html.parser import HTMLParser

import msgspec
import pytest

from everstream.apis import APIS
from everstream.apis.openapi.components import schemas_of
from everstream.settings import load_settings
from everstream.web.context import EXTENSION as CONTEXT
from everstream.web.factory import create_app
from everstream.web.static_files import ENDPOINTS, VERSION
from everstream.web.streaming import PIECE_BYTES
from harness.stack import MODELS

PATHS_WITH_HEADERS = {
    "/v1/messages": {"request-id", "x-everstream-ignored", "x-should-retry"},
    "/v1/completions": {
        "openai-processing-ms",
        "openai-version",
        "x-everstream-ignored",
        "x-request-id",
        "x-should-retry",
    },
}
REQUIRED_FIELDS = {
    "anthropic.Tool": ["name", "input_schema"],
    "inferless.InputTensor": ["name", "datatype", "shape"],
    "openai.Tool": ["type", "name"],
}
NOT_DESCRIBED = set(ENDPOINTS)
"""The page's files."""
SCHEMA = """
IS_STREAMING_OUTPUT = True
NASTY = '</code><script>alert("1")</script>'
INPUT_SCHEMA = {
    "<b>name</b>": {"datatype": "STRING", "required": True, "example": NASTY},
    "any": {"datatype": "JSON", "json_schema": {"description": NASTY, "enum": [NASTY]}},
}
"""


def app_of(**environ):
    return create_app(
        APIS, load_settings({"EVERSTREAM_ACCESS": "open"} | {name: str(value) for name, value in environ.items()})
    )


def document_of(app):
    answer = app.test_client().get("/openapi.json")
    assert answer.content_type == "application/json"
    return answer.json


def page_of(app):
    answer = app.test_client().get("/docs")
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
    return answer.text


@pytest.fixture(scope="module")
def chat():
    """With every API that there is."""
    return app_of(EVERSTREAM_APP_DIR=MODELS / "chat", EVERSTREAM_DEMO=1)


@pytest.fixture(scope="module")
def document(chat):
    return document_of(chat)


def test_every_route_is_described(chat, document):
    routes = {
        (re.sub("<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule.rule), method.lower())
        for rule in chat.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.endpoint not in NOT_DESCRIBED
    }
    assert {(path, method) for path, methods in document["paths"].items() for method in methods} == routes


def test_no_description_is_without_a_route(chat):
    views = {rule.endpoint for rule in chat.url_map.iter_rules()}
    described = {f"{api.blueprint.name}.{view}" for api in APIS for view in api.description.routes}
    assert described <= views


def body_of(document, path):
    return document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]


def test_body_is_made_of_the_models_own_inputs(document):
    for path in ("/generations", "/v1/chat/completions"):
        fields = body_of(document, path)["properties"]
        number = {"type": "number", "minimum": 0, "maximum": 2}
        assert fields["temperature"] == {"anyOf": [number, {"type": "null"}], "examples": [0.7]}
        messages = fields["messages"]["anyOf"][0]
        assert messages["minItems"] == 1
        assert "tool" in messages["items"]["properties"]["role"]["enum"]
        assert fields["flush_ms"]["anyOf"][0]["maximum"] == 1000
    assert "system" not in fields


def test_names_of_models_and_formats_are_listed(document):
    fields = body_of(document, "/generations")["properties"]
    assert fields["model"]["anyOf"][0]["enum"] == ["smollm2-135m-instruct"]
    for path in ("/stream", "/generations/{generation}/events"):
        route = document["paths"][path]["get"]
        (formats,) = (each["schema"]["enum"] for each in route["parameters"] if each["name"] == "format")
        assert {"text", "openai-chat", "completions", "messages"} <= set(formats)
        (kinds, *_) = (each["schema"]["anyOf"] for each in route["responses"]["200"]["content"].values())
        assert {"type": "string"} in [each["properties"]["data"] for each in kinds]


def test_several_models_are_alternatives():
    document = document_of(app_of(MODELS=f"chat={MODELS / 'chat'} echo={MODELS / 'echo'}"))
    alternatives = body_of(document, "/generations")["anyOf"]
    assert [(each["title"], "speed" in each["properties"]) for each in alternatives] == [
        ("chat", False),
        ("echo", True),
    ]
    # Only a chat's inputs are those of a chat completion.
    assert "anyOf" not in body_of(document, "/v1/chat/completions")
    query = document["paths"]["/stream"]["get"]["parameters"]
    assert {each["name"]: each["required"] for each in query}.items() >= {"speed": False, "text": False}.items()


def folder_with(path, schema):
    """A model folder with this `input_schema.py`."""
    path.mkdir(exist_ok=True)
    (path / "input_schema.py").write_text(schema)
    (path / "app.py").write_text("")
    return path


def app_with(path, inputs):
    """An application whose only model has these inputs."""
    return app_of(EVERSTREAM_APP_DIR=folder_with(path, f"IS_STREAMING_OUTPUT = True\nINPUT_SCHEMA = {inputs!r}"))


@pytest.mark.parametrize(
    "trouble",
    [
        {"json_schema": {"$ref": "#"}},
        {"json_schema": {"$ref": "#/definitions/X"}},
        {"json_schema": {"properties": {"x": True, "y": False, "z": {"items": True}}}},
        {"json_schema": {"anyOf": []}},
        {"json_schema": {"oneOf": [True], "description": 1}},
        {"json_schema": {"anyOf": [True, {"type": "null"}]}},
        {"json_schema": {"properties": {"items": {}, "type": {"type": []}}, "format": "served-model"}},
        {"example": "#/components/schemas/Nothing"},
        {"example": {"$ref": "#/components/schemas/Nothing", "format": "served-model"}},
        {"example": ["x" * 100_000]},
        {"json_schema": functools.reduce(lambda inner, _: {"items": {"oneOf": [inner]}}, range(16), {})},
        {"datatype": "BOOL", "shape": [1] * 500},
    ],
    ids=lambda each: str(each)[:50],
)
def test_one_models_declarations_leave_other_models_alone(tmp_path, trouble):
    inputs = {"x": {"datatype": "JSON", **trouble}}
    path = folder_with(tmp_path / "odd", f"IS_STREAMING_OUTPUT = True\nINPUT_SCHEMA = {inputs!r}")
    app = app_of(MODELS=f"echo={MODELS / 'echo'} odd={path}")
    echo, odd = body_of(document_of(app), "/generations")["anyOf"]
    assert "speed" in echo["properties"] and "x" in odd["properties"]
    assert odd["properties"]["x"].get("examples", [trouble.get("example")]) == [trouble.get("example")]
    assert "<code>speed</code>" in page_of(app)


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        ({"datatype": "INT8", "shape": [2]}, "array (2 to 2) of integer (-128 to 127)"),
        ({"datatype": "STRING", "shape": [-1]}, "array (at most 1000) of string or string"),
        (
            {"json_schema": {"type": ["string", "array", "null"], "items": {"type": "object"}}},
            "string or array of object",
        ),
        (
            {"json_schema": {"type": "array", "items": {"type": ["array", "null"]}}},
            "array of array of any JSON or null",
        ),
        ({"json_schema": {"oneOf": [{"type": "string"}, {"type": "boolean"}]}}, "string or boolean"),
        ({"json_schema": {"type": "array", "items": {"oneOf": [{"type": "null"}, {}]}}}, "array of (any JSON or null)"),
        (
            {"json_schema": {"allOf": [{"type": "object"}, {"properties": {"a": False}}]}},
            "object and object (a: nothing)",
        ),
        ({"json_schema": {"type": "null"}}, ""),
    ],
)
def test_page_names_types(tmp_path, field, shown):
    page = page_of(app_with(tmp_path, {"only_input": {"datatype": "JSON", **field}}))
    _, _, body = page.partition('id="post_generations"')
    row = re.search("<code>only_input</code></th>\\s*<td>(.*?)</td>", body)[1]
    assert re.sub("<[^>]+>", "", row) == shown


CLASHING = {name: {"datatype": "STRING", "required": True} for name in ("flush_ms", "model", "prompt", "stream", "id")}


def names_of(path, document):
    """The request's fields on this route whose schema is that of the model's input."""
    body = body_of(document, path)
    (schema,) = body.get("anyOf", [body])
    return {name for name, field in schema["properties"].items() if field == {"type": "string"}}, schema["required"]


def test_routes_own_fields_win_over_inputs_of_the_same_name(tmp_path):
    """As in the routes. Without other models, nobody has to name one, so `model` may be an input."""
    document = document_of(app_with(tmp_path / "one", CLASHING))
    assert names_of("/generations", document) == (
        {"model", "prompt", "stream", "id"},
        ["model", "prompt", "stream", "id"],
    )
    query = document["paths"]["/stream"]["get"]["parameters"]
    of_inputs = {each["name"] for each in query if each["schema"] == {"type": "string"}}
    assert of_inputs == {"model", "prompt", "stream", "id"}
    assert names_of("/v1/completions", document) == ({"id"}, ["prompt", "id"])
    path = "/v2/models/{name}/generate"
    assert names_of(path, document) == (
        {"flush_ms", "model", "prompt", "stream"},
        ["flush_ms", "model", "prompt", "stream"],
    )
    document = document_of(app_of(MODELS=f"named={tmp_path / 'one'}"))
    assert names_of("/generations", document) == ({"prompt", "stream", "id"}, ["prompt", "stream", "id"])


@pytest.mark.parametrize("has_several", [False, True])
def test_format_of_a_stream_may_be_an_input_of_a_single_model(tmp_path, has_several):
    app = app_with(tmp_path / "one", {"format": {"datatype": "BOOL", "required": True}})
    if has_several:
        app = app_of(MODELS=f"named={tmp_path / 'one'}")
    query = document_of(app)["paths"]["/stream"]["get"]["parameters"]
    (found,) = (each["schema"]["type"] for each in query if each["name"] == "format")
    assert found == ("string" if has_several else "boolean")


def test_body_of_a_model_without_inputs_is_closed(chat, monkeypatch):
    models = chat.extensions[CONTEXT].models
    model = msgspec.structs.replace(models.get(), inputs={})
    monkeypatch.setattr(models, "find", lambda _: model)
    document = document_of(chat)
    assert body_of(document, "/generations")["additionalProperties"] is False
    # It is no model for chats, so the body has the route's own fields alone.
    assert "temperature" not in body_of(document, "/v1/chat/completions")["properties"]


def test_document_changes_once_inputs_are_known(monkeypatch):
    """Until then the body is open. Each application has its own document."""
    app, other = (app_of(MODELS=f"chat={MODELS / 'chat'} echo={MODELS / 'echo'}") for _ in range(2))
    models, find = app.extensions[CONTEXT].models, app.extensions[CONTEXT].models.find
    with monkeypatch.context() as patch:
        patch.setattr(models, "find", lambda name: None if name == "echo" else find(name))
        known, unknown = body_of(document_of(app), "/generations")["anyOf"]
        assert (known["title"], known["additionalProperties"]) == ("chat", False)
        assert unknown["title"] == "echo" and "additionalProperties" not in unknown
        assert "speed" not in unknown["properties"] and "flush_ms" in unknown["properties"]
        assert "speed" in body_of(document_of(other), "/generations")["anyOf"][1]["properties"]
        assert "<code>speed</code>" not in page_of(app)
    assert "speed" in body_of(document_of(app), "/generations")["anyOf"][1]["properties"]
    assert "<code>speed</code>" in page_of(app)


def test_status_of_an_answer_and_of_errors_has_both(document):
    response = document["paths"]["/v2/models/{name}/ready"]["get"]["responses"]["503"]
    assert response["description"] == "It is not. Or `log_unavailable`, `model_failed`, `model_loading`."
    references = [
        each["$ref"].rpartition("/")[2] for each in response["content"]["application/json"]["schema"]["anyOf"]
    ]
    assert references == ["inferless.ModelReady", "inferless.ErrorBody"]
    assert "Retry-After" in response["headers"]
    assert document["paths"]["/health"]["get"]["responses"].keys() == {"200", "400", "421", "500", "503"}


def test_headers_are_those_of_each_api(document):
    of_route = {
        path: set(document["paths"][path]["post"]["responses"]["200"]["headers"]) for path in PATHS_WITH_HEADERS
    }
    assert of_route == PATHS_WITH_HEADERS
    for path, methods in document["paths"].items():
        for operation in methods.values():
            if operation["tags"] == ["openai"]:
                names = {each["name"] for each in operation["parameters"] if each["in"] == "header"}
                assert "x-request-id" in names, path


@pytest.mark.parametrize("path", ["/openapi.json", "/docs"])
def test_long_text_is_sent_in_small_pieces(chat, path):
    """A slow client has time for each, and counts as a stream."""
    follower, client = chat.extensions[CONTEXT].follower, chat.test_client()
    slots = follower.streams._slots
    response = client.get(path)
    pieces = list(response.response)
    assert max(map(len, pieces)) <= PIECE_BYTES < sum(map(len, pieces)) == response.content_length
    assert follower.streams._slots == slots + 1
    response.close()
    assert follower.streams._slots == slots
    client.head(path).close()
    assert follower.streams._slots == slots


def test_fields_without_which_requests_are_refused_are_required(document):
    """Also those with a default, which only serves to name them in the error."""
    schemas = document["components"]["schemas"]
    required = {name: schemas[name]["required"] for name in REQUIRED_FIELDS}
    assert required == REQUIRED_FIELDS
    assert schemas["inferless.InputTensor"]["properties"]["shape"] == {"type": "array", "items": {"type": "integer"}}


def test_types_of_the_same_name_are_an_error():
    structs = [msgspec.defstruct("A", [], module=module) for module in ("one.x", "two.x")]
    with pytest.raises(ValueError, match="two types of api have the same name"):
        schemas_of(structs, "api")
    names = schemas_of([msgspec.defstruct("A", [], module=module) for module in ("one", "two")], "api")[1]
    assert names.keys() == {"api.one.A", "api.two.A"}


def test_page_escapes_what_a_model_declares(tmp_path):
    page = page_of(app_of(EVERSTREAM_APP_DIR=folder_with(tmp_path, SCHEMA)))
    assert "<script" not in page and "<b>name" not in page
    assert page.count("&lt;b&gt;name&lt;/b&gt;") > 1
    assert "&lt;script&gt;alert(" in page


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.ids, self.targets, self.origins = [], set(), set()

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            elif name in ("href", "src"):
                (self.targets if value.startswith("#") else self.origins).add(value)


def test_page_has_every_type_and_route(chat, document):
    page, links = page_of(chat), Links()
    links.feed(page)
    assert len(set(links.ids)) == len(links.ids)
    assert {target[1:] for target in links.targets} <= set(links.ids)
    # Relative, for services under a base path.
    styles = {f"static/v-{VERSION}/style.css", f"static/v-{VERSION}/docs.css"}
    assert links.origins == {"data:,", "openapi.json"} | styles
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert {operation["operationId"] for operation in operations} < set(links.ids)


def test_document_is_made_once(chat, monkeypatch):
    page_of(chat)
    monkeypatch.setattr("everstream.apis.openapi.routes.document", None)
    assert page_of(chat) and document_of(chat)


def parts(value):
    """Every object in a document, examples apart."""
    if isinstance(value, dict):
        yield value
        for name, item in value.items():
            if name != "examples":
                yield from parts(item)
    elif isinstance(value, list):
        for item in value:
            yield from parts(item)


def test_generators_of_clients_can_read_it(document):
    """They name classes by titles, need the type of items, and know no enums of true or false."""
    for part in parts(document["components"]["schemas"]):
        assert not isinstance(part.get("title"), str)
        assert part.get("type") != "array" or "items" in part or "prefixItems" in part
        assert not any(isinstance(item, bool) for item in part.get("enum", ()))
