"""The sse-starlette server for `bench.fan_out`, as in that library's examples: one queue per viewer."""

import asyncio

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

viewers: set[asyncio.Queue] = set()


async def events(_request: Request) -> EventSourceResponse:
    queue: asyncio.Queue = asyncio.Queue()

    async def published():
        viewers.add(queue)
        try:
            while True:
                event, data = await queue.get()
                yield ServerSentEvent(data, event=event, sep="\n")
                if event:
                    return
        finally:
            viewers.discard(queue)

    return EventSourceResponse(published(), sep="\n")


async def publish(request: Request) -> Response:
    event = request.headers.get("X-EventSource-Event")
    data = (await request.body()).decode()
    for queue in viewers:
        queue.put_nowait((event, data))
    return Response(status_code=204)


app = Starlette(routes=[Route("/events/{name}", events), Route("/publish/{name}", publish, methods=["POST"])])
