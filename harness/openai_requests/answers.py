"""Sends the tables' requests, and makes answers comparable: without ids and times, and a stream's chunks joined.

A comparable answer is a dict: `status`; of a refusal also `param`; of a stream also `every_chunk`, the keys that all
chunks with a choice have, and `ended`.
"""

import json
from concurrent.futures import ThreadPoolExecutor

import requests

AT_ONCE = 64
TIMEOUT_S = 300
DIFFERS = ("id", "created", "system_fingerprint")
"""Keys whose values are never the same."""


def all_answers(url, model, table):
    """The comparable answers to all requests of a table, by name."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = pool.map(lambda request: answer(url, model, request), table)
        return {request.name: found for request, found in zip(table, answers, strict=True)}


def answer(url, model, request):
    response = requests.post(url + request.path, json={"model": model, **request.body}, timeout=TIMEOUT_S)
    if response.status_code != requests.codes.ok:
        return refusal(response.status_code, response.json()["error"])
    if response.headers["Content-Type"].startswith("text/event-stream"):
        return {"status": 200, **joined(response.content.decode())}
    return {"status": 200, **without_ids(response.json())}


def refusal(status, error):
    # vLLM's `param` sometimes begins with the place that FastAPI found it in.
    return {"status": status, "param": (error["param"] or "").removeprefix("body.") or None}


def without_ids(value):
    """The same JSON without the values that differ each time."""
    if isinstance(value, list):
        return [without_ids(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: type(item).__name__ if key in DIFFERS else without_ids(item) for key, item in value.items()}


def joined(stream):
    """A stream's chunks as one answer."""
    events = [line.removeprefix("data:").strip() for line in stream.splitlines() if line.startswith("data:")]
    chunks = [json.loads(event) for event in events if event != "[DONE]"]
    whole = {"every_chunk": keys_of_all(chunks), "ended": events[-1] == "[DONE]", "choices": {}}
    for chunk in chunks:
        if "error" in chunk:
            return whole | {"error": refusal(chunk["error"]["code"], chunk["error"])}
        _add(whole, without_ids({key: value for key, value in chunk.items() if key != "choices"}))
        for choice in chunk["choices"]:
            _add(whole["choices"].setdefault(str(choice["index"]), {}), choice)
    return whole


def keys_of_all(chunks):
    """The keys that each chunk with a choice has, its choice's included."""
    having = [chunk for chunk in chunks if chunk.get("choices")]
    keys = [set(chunk) | {f"choices[].{key}" for key in chunk["choices"][0]} for chunk in having]
    return sorted(set.intersection(*keys)) if keys else []


def _add(whole, piece):
    """Add what a piece says to what earlier ones said: texts and lists grow, anything else is replaced."""
    for key, value in piece.items():
        known = whole.get(key)
        if value is None or known is None:
            whole[key] = value if known is None else known
        elif key == "tool_calls":
            _add_calls(known, value)
        elif isinstance(value, dict):
            _add(known, value)
        elif isinstance(value, list) or key in ("content", "text", "reasoning", "arguments"):
            whole[key] = known + value
        else:
            whole[key] = value
    if piece.get("tool_calls"):
        whole["tool_calls"] = without_ids(whole["tool_calls"])


def _add_calls(calls, pieces):
    for piece in pieces:
        known = next((call for call in calls if call["index"] == piece["index"]), None)
        if known is None:
            calls.append(piece)
        else:
            _add(known, piece)
