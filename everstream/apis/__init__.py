"""The public APIs, one folder each: thin routes, and a pure wire format beside them.

In: HTTP requests. Out: HTTP responses, most of them streams of entries. Each folder's `routes` has an `Api` for
`web.factory`. Imports `web`, `log` and `contract`; imported by `everstream.wsgi` alone.
"""

from everstream.apis.access.routes import API as ACCESS
from everstream.apis.ag_ui.routes import API as AG_UI
from everstream.apis.ai_sdk.routes import API as AI_SDK
from everstream.apis.anthropic.routes import API as ANTHROPIC
from everstream.apis.dashboard.routes import API as DASHBOARD
from everstream.apis.demo.routes import API as DEMO
from everstream.apis.durable_streams.routes import API as DURABLE_STREAMS
from everstream.apis.gallery.routes import API as GALLERY
from everstream.apis.inferless.routes import API as INFERLESS
from everstream.apis.native.routes import API as NATIVE
from everstream.apis.openai.routes import API as OPENAI
from everstream.apis.openapi.routes import API as OPENAPI
from everstream.apis.operations.routes import API as OPERATIONS
from everstream.apis.topics.routes import API as TOPICS

APIS = (
    NATIVE,
    TOPICS,
    DURABLE_STREAMS,
    ACCESS,
    OPENAI,
    ANTHROPIC,
    AI_SDK,
    AG_UI,
    INFERLESS,
    OPERATIONS,
    DASHBOARD,
    GALLERY,
    DEMO,
    OPENAPI,
)
