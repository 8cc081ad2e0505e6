"""What `vllm_seam` and `vllm_taps` assume about vLLM's internals, and whether the installed vLLM matches.

Checked once, when the model loads. Every name inside vLLM that the fast path relies on is listed here.
"""

import inspect
import operator
from typing import Any, NamedTuple


class Internals(NamedTuple):
    """The vLLM classes that the fast path reaches into."""

    OutputProcessor: Any
    RequestState: Any
    EngineCoreRequest: Any
    EngineCoreOutput: Any
    IncrementalDetokenizer: Any


# For each method, the parameters that we take or pass, by name and in this order; for each class, the fields we use.
TAKEN_OVER = {
    "OutputProcessor.add_request": ("self", "request"),
    "OutputProcessor.process_outputs": (
        "self",
        "engine_core_outputs",
        "engine_core_timestamp",
        "iteration_stats",
        "weight_version",
    ),
    "RequestState.make_request_output": ("self", "new_token_ids", "pooling_output", "finish_reason", "stop_reason"),
}
CALLED = {
    "EngineCoreOutput": ("request_id", "new_token_ids"),
    "IncrementalDetokenizer.from_new_request": ("tokenizer", "request"),
    "IncrementalDetokenizer.update": ("self", "new_token_ids", "stop_terminated"),
    "IncrementalDetokenizer.get_next_output_text": ("self", "finished", "delta"),
    "IncrementalDetokenizer.num_output_tokens": ("self",),
}
FIELDS = {
    "RequestState": ("request_id", "detokenizer", "queue"),
    "EngineCoreRequest": ("request_id", "external_req_id", "prompt_token_ids", "prompt_embeds", "sampling_params"),
}


def find_internals() -> Internals:
    """Raises an ImportError that names what is gone."""
    from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest  # noqa: PLC0415
    from vllm.v1.engine.detokenizer import IncrementalDetokenizer  # noqa: PLC0415
    from vllm.v1.engine.output_processor import OutputProcessor, RequestState  # noqa: PLC0415

    return Internals(OutputProcessor, RequestState, EngineCoreRequest, EngineCoreOutput, IncrementalDetokenizer)


def differences(internals: Internals) -> list[str]:
    """What would break the fast path, in words."""
    found = [
        _parameters_differ(internals, path, names, is_called=path in CALLED)
        for path, names in (TAKEN_OVER | CALLED).items()
    ]
    found += [_field_lacks(internals, owner, name) for owner, names in FIELDS.items() for name in names]
    return [each for each in found if each]


def _parameters_differ(internals: Internals, path: str, names: tuple[str, ...], *, is_called: bool) -> str:
    try:
        parameters = list(inspect.signature(operator.attrgetter(path)(internals)).parameters.values())
    except AttributeError:
        return f"{path} is gone"
    leading, rest = parameters[: len(names)], parameters[len(names) :]
    by_place_or_name = all(each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for each in leading)
    demands_more = is_called and any(each.default is each.empty for each in rest)
    if tuple(each.name for each in leading) == names and by_place_or_name and not demands_more:
        return ""
    plain = inspect.Signature([each.replace(annotation=each.empty) for each in parameters])
    return f"{path} takes {plain}, expected ({', '.join(names)})"


def _field_lacks(internals: Internals, owner: str, name: str) -> str:
    fields = inspect.signature(getattr(internals, owner)).parameters
    return "" if name in fields else f"{owner} has no {name}"


# What both paths use of AsyncLLM, and what is lost without it.
ASYNC_LLM_API = {
    "errored": "the death of an idle engine is noticed only at its next generation",
    "get_supported_tasks": "a request may wait forever for an engine that dies at its first request",
    "output_processor.get_num_unfinished_requests": "/readyz does not show vLLM's own count of requests",
    "engine_core.resources.engine_manager.finished_procs": "the log does not say how vLLM's processes ended",
}


def has(thing: Any, path: str) -> bool:
    try:
        operator.attrgetter(path)(thing)
    except AttributeError:
        return False
    return True
