"""What `GET /openapi.json` says about these routes."""

from everstream.errors import ErrorBody
from everstream.web.description import ApiDescription

DESCRIPTION = ApiDescription("The Durable Streams protocol.", {}, ErrorBody)
