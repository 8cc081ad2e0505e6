"""vLLM's /tokenize and /detokenize, with the prompts of OpenAI's API. Its routes are part of `routes`' blueprint.

POST /tokenize      {"prompt"} or {"messages"}: {"count", "max_model_len", "tokens"}
POST /detokenize    {"tokens"}: {"prompt"}
"""

from typing import Any

from everstream.contract import inputs
from everstream.contract.schema import Field
from everstream.errors import InvalidInput
from everstream.web import posts, readiness
from everstream.web.access.rules import INFER, allow
from everstream.web.context import app_context
from everstream.web.models import ServedModel
from everstream.web.submission import body, options_from_json, text_of, tokens_of

MAX_TOKENS = 100_000
MAX_TOKEN_ID = 2**31 - 1
TOKENS = {
    "tokens": Field("INT64", [-1], required=True, minimum=0, maximum=MAX_TOKEN_ID, max_items=MAX_TOKENS),
}
_PROMPTS = ("prompt", "messages")


@allow(INFER)
def tokenize() -> dict[str, Any]:
    given = {name: value for name, value in body().items() if value is not None}
    model = _model(given)
    if ("prompt" in given) == ("messages" in given):
        raise InvalidInput("give either prompt or messages", param="prompt")
    wanted = {name: value for name, value in given.items() if name not in _PROMPTS and name in model.inputs}
    posts.name_ignored([name for name in given if name not in (*_PROMPTS, *wanted)])
    wanted |= {"messages": given["messages"]} if "messages" in given else _raw_prompt(given["prompt"], model)
    checked = inputs.from_json(wanted, model.inputs, app_context().settings.max_prompt_chars)
    tokens = tokens_of(model, checked)
    (found,) = readiness.of(app_context(), [app_context().models.folder(model.name)])
    return {"count": len(tokens), "max_model_len": found.max_model_len, "tokens": tokens, "token_strs": None}


@allow(INFER)
def detokenize() -> dict[str, Any]:
    given = body()
    model = _model(given)
    tokens = inputs.from_json({"tokens": given.get("tokens")}, TOKENS, max_chars=0)
    return {"prompt": text_of(model, tokens)}


def _raw_prompt(prompt: Any, model: ServedModel) -> dict[str, Any]:
    return {"prompt": prompt, **({"raw": True} if "raw" in model.inputs else {})}


def _model(given: dict[str, Any]) -> ServedModel:
    """The one that the body names, or the first."""
    name = options_from_json(given, ("model",)).model
    return app_context().models.get(posts.served_name(name))
