"""Everstream's Python client, sync and async, behind one form, so that each test runs with both."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx

from everstream.client import AsyncClient, Client

TIMEOUT_S = 120


class SyncReader:
    """`answer` starts or follows, and hands each event over as it comes. `transport`, `http`: httpx's classes."""

    transport = httpx.HTTPTransport
    http = httpx.Client

    def answer(self, url, on_event=lambda event, answer: None, *, follow=None, after=None, options=None, **inputs):
        """The answer, read to the end, and its events. `options`: the client's."""
        with Client(url, **options or {}) as client:
            answer = client.follow(follow, after) if follow else client.start(**inputs)
            events = []
            for event in answer:
                events.append(event)
                on_event(event, answer)
            return answer.result(), events

    def messages(self, url, topics, count, on_message=lambda message: None, *, options=None, **start):
        """So many messages of topics; fewer if they end before. `start`: where to begin. `options`: the client's."""
        found = []
        with Client(url, **options or {}) as client, client.follow_topics(topics, **start) as messages:
            for message in messages:
                found.append(message)
                on_message(message)
                if len(found) == count:
                    break
        return found

    def texts(self, url, **inputs):
        with Client(url) as client:
            return list(client.start(**inputs).texts())

    def stop(self, url, generation):
        with Client(url) as client:
            return client.stop(generation)


class AsyncReader:
    transport = httpx.AsyncHTTPTransport
    http = httpx.AsyncClient

    def answer(self, url, on_event=lambda event, answer: None, *, follow=None, after=None, options=None, **inputs):
        async def read():
            async with AsyncClient(url, **options or {}) as client:
                answer = client.follow(follow, after) if follow else await client.start(**inputs)
                events = []
                async for event in answer:
                    events.append(event)
                    on_event(event, answer)
                return await answer.result(), events

        return asyncio.run(read())

    def messages(self, url, topics, count, on_message=lambda message: None, *, options=None, **start):
        async def read():
            found = []
            async with (
                AsyncClient(url, **options or {}) as client,
                client.follow_topics(topics, **start) as messages,
            ):
                async for message in messages:
                    found.append(message)
                    on_message(message)
                    if len(found) == count:
                        break
            return found

        return asyncio.run(read())

    def texts(self, url, **inputs):
        async def read():
            async with AsyncClient(url) as client:
                return [text async for text in (await client.start(**inputs)).texts()]

        return asyncio.run(read())

    def stop(self, url, generation):
        async def stop():
            async with AsyncClient(url) as client:
                return await client.stop(generation)

        return asyncio.run(stop())


READERS = {"sync": SyncReader(), "async": AsyncReader()}


@contextmanager
def meanwhile(task, *args, **kwargs):
    """Run a task in a thread beside the block. Yields its future, whose result is also awaited at the end."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(task, *args, **kwargs)
        yield future
        future.result(TIMEOUT_S)
