"""Calls of the `openai` package; each returns what the client made of the answer."""

import asyncio
import uuid

import openai
from questions import (
    FOLLOW_UP,
    GREEDY,
    LONG_TOKENS,
    MAX_TOKENS,
    PROMPT,
    QUESTION,
    STORY,
    TOO_LONG,
    messages,
    stop_answer,
    user,
)


def client_of(url, **options):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="key", **options)


def completions_of(url):
    return client_of(url).chat.completions


def dumped(answer):
    return answer.model_dump(mode="json") | {"_request_id": answer._request_id}


def dumped_all(stream):
    return [each.model_dump(mode="json") for each in stream]


# Chat completions.


def chat(url, model):
    return dumped(completions_of(url).create(model=model, messages=messages(), **GREEDY))


def chat_stream(url, model):
    options = {"stream": True, "stream_options": {"include_usage": True}}
    return dumped_all(completions_of(url).create(model=model, messages=messages(), **GREEDY, **options))


def chat_stream_helper(url, model):
    """The client puts the chunks together itself, which it does only if each follows its types."""
    with completions_of(url).stream(model=model, messages=messages(), **GREEDY) as stream:
        events = [event.type for event in stream]
        return {"events": events, "answer": stream.get_final_completion().model_dump(mode="json")}


def chat_async(url, model):
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="key") as client:
            asked = [client.chat.completions.create(model=model, messages=messages(), **GREEDY) for _ in range(3)]
            return [dumped(answer) for answer in await asyncio.gather(*asked)]

    return asyncio.run(ask())


def chat_second_turn(url, model):
    """The first answer goes back as the client dumps it, with its nulls."""
    sent = completions_of(url).create(model=model, messages=messages(), **GREEDY).choices[0].message.model_dump()
    history = messages(sent, user(FOLLOW_UP))
    answer = completions_of(url).create(model=model, messages=history, **GREEDY)
    return {"sent": sent, "answer": dumped(answer)}


def chat_second_turn_as_object(url, model):
    """The first answer goes back as the client's own object."""
    first = completions_of(url).create(model=model, messages=messages(), **GREEDY).choices[0].message
    history = messages(first, user(FOLLOW_UP))
    return dumped(completions_of(url).create(model=model, messages=history, **GREEDY))


def chat_parts(url, model):
    parts = [{"type": "text", "text": "What is the capital"}, {"type": "text", "text": " of France?"}]
    history = [{"role": "developer", "content": "Be brief."}, user(parts)]
    return dumped(completions_of(url).create(model=model, messages=history, **GREEDY))


def chat_image(url, model):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    return refused(lambda: completions_of(url).create(model=model, messages=[user([image])], **GREEDY))


def chat_no_ops(url, model):
    """Parameters whose values change nothing, and some that only other servers know."""
    no_ops = {
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "n": 1,
        "logit_bias": {},
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "logprobs": False,
        "stop": None,
        "user": "someone",
        "seed": 1,
        "service_tier": "auto",
        "store": False,
        "metadata": {"a": "b"},
        "parallel_tool_calls": True,
        "prompt_cache_key": "key",
        "safety_identifier": "someone",
        "verbosity": "low",
        "modalities": ["text"],
        "extra_body": {"repetition_penalty": 1.0, "top_k": -1, "min_p": 0.0},
    }
    return dumped(completions_of(url).create(model=model, messages=messages(), **GREEDY, **no_ops))


def chat_logprobs(url, model):
    return dumped(completions_of(url).create(model=model, messages=messages(), **GREEDY, logprobs=True, top_logprobs=2))


def chat_choices(url, model):
    """At a temperature, because vLLM refuses to give the likeliest answer twice."""
    options = {"n": 2, "temperature": 1, "seed": 1, "max_tokens": MAX_TOKENS}
    return dumped(completions_of(url).create(model=model, messages=messages(), **options))


def chat_stop(url, model):
    return dumped(completions_of(url).create(model=model, messages=messages(), **GREEDY, stop=["capital"]))


# Completions.


def completion(url, model):
    return dumped(client_of(url).completions.create(model=model, prompt=PROMPT, **GREEDY))


def completion_stream(url, model):
    options = {"stream": True, "stream_options": {"include_usage": True}}
    return dumped_all(client_of(url).completions.create(model=model, prompt=PROMPT, **GREEDY, **options))


def completion_prompts(url, model):
    """Two prompts, as text and as tokens."""
    completions = client_of(url).completions
    return {
        "texts": dumped(completions.create(model=model, prompt=[PROMPT, QUESTION], **GREEDY)),
        "tokens": dumped(completions.create(model=model, prompt=[[1, 2, 3], [4, 5]], **GREEDY)),
    }


def completion_logprobs(url, model):
    return dumped(client_of(url).completions.create(model=model, prompt=PROMPT, **GREEDY, logprobs=2, echo=True))


# Models, errors, request ids, retries.


def models(url, model):
    client = client_of(url)
    return {"list": dumped_all(client.models.list()), "one": dumped(client.models.retrieve(model))}


def refused(call):
    """What the client raises."""
    try:
        return {"returned": call().model_dump(mode="json")}
    except openai.APIStatusError as error:
        return {
            "class": type(error).__name__,
            "status": error.status_code,
            "request_id": error.request_id,
            "type": error.type,
            "code": error.code,
            "param": error.param,
            "message": error.message,
        }


def errors(url, model):
    client = client_of(url, max_retries=0)
    chats, completions = client.chat.completions, client.completions
    return {
        "unknown model": refused(lambda: chats.create(model="other", messages=messages())),
        "unknown model of a completion": refused(lambda: completions.create(model="other", prompt=PROMPT)),
        "unknown model looked up": refused(lambda: client.models.retrieve("other")),
        "too long": refused(lambda: chats.create(model=model, messages=[user(TOO_LONG)])),
        "too long completion": refused(lambda: completions.create(model=model, prompt=TOO_LONG)),
        "too long stream": refused(lambda: chats.create(model=model, messages=[user(TOO_LONG)], stream=True)),
        "bad temperature": refused(lambda: chats.create(model=model, messages=messages(), temperature=-1)),
        "no messages": refused(lambda: chats.create(model=model, messages=[])),
        "bad role": refused(lambda: chats.create(model=model, messages=[{"role": "stranger", "content": "a"}])),
        "embeddings": refused(lambda: client.embeddings.create(model=model, input="a")),
        "images": refused(lambda: client.images.generate(model=model, prompt="a")),
    }


def stopped_stream(url, model):
    """What the client makes of an answer that is stopped on its way."""
    chunks = []
    stream = completions_of(url).create(model=model, messages=[user(STORY)], stream=True, max_tokens=LONG_TOKENS)
    try:
        for chunk in stream:
            chunks.append(chunk.model_dump(mode="json"))
            if len(chunks) == 3:
                stop_answer(url, chunk.id)
    except openai.APIError as error:
        return {"class": type(error).__name__, "message": error.message, "code": error.code, "chunks": chunks}


def headers(url, model):
    raw = completions_of(url).with_raw_response.create(
        model=model, messages=messages(), extra_headers={"X-Request-Id": "my-own-id"}, **GREEDY
    )
    return {"headers": {name.lower(): value for name, value in raw.headers.items()}, "request_id": raw.request_id}


def ignored_fields(url, model):
    raw = completions_of(url).with_raw_response.create(
        model=model, messages=messages(), extra_body={"never_heard_of": 1}, prompt_cache_key="key", **GREEDY
    )
    return {name.lower(): value for name, value in raw.headers.items()}


def idempotent(url, model):
    """The same key with the same body twice, and with another body."""
    completions = client_of(url, max_retries=0).chat.completions
    options = {"extra_headers": {"Idempotency-Key": str(uuid.uuid4())}, "temperature": 1, "max_tokens": MAX_TOKENS}

    def ask(question):
        return completions.create(model=model, messages=[user(question)], **options)

    first, second = dumped(ask(QUESTION)), dumped(ask(QUESTION))
    return {"first": first, "second": second, "other": refused(lambda: ask(FOLLOW_UP))}


def idempotent_stream(url, model):
    options = {"extra_headers": {"Idempotency-Key": str(uuid.uuid4())}, "temperature": 1, "max_tokens": MAX_TOKENS}

    def ask():
        return completions_of(url).create(model=model, messages=messages(), stream=True, **options)

    return [dumped_all(ask()), dumped_all(ask())]
