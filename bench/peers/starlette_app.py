"""Topics with sse-starlette, as in that library's examples: one queue per follower."""

import asyncio
import os
from collections import defaultdict

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

HEARTBEAT_S = int(os.environ["HEARTBEAT_S"])

followers: defaultdict[str, set[asyncio.Queue]] = defaultdict(set)


async def events(request: Request) -> EventSourceResponse:
    topic, queue = request.path_params["topic"], asyncio.Queue()

    async def published():
        followers[topic].add(queue)
        try:
            while True:
                yield ServerSentEvent(await queue.get(), sep="\n")
        finally:
            followers[topic].discard(queue)

    return EventSourceResponse(published(), sep="\n", ping=HEARTBEAT_S)


async def publish(request: Request) -> Response:
    data = (await request.body()).decode()
    for queue in followers[request.path_params["topic"]]:
        queue.put_nowait(data)
    return Response(status_code=204)


app = Starlette(
    routes=[Route("/events/{topic:path}", events), Route("/publish/{topic:path}", publish, methods=["POST"])]
)
