"""Starts vLLM: the settings' model and ENGINE_ARGS become an AsyncLLM with its processes. Called by `chat_model`.

On CPUs, vLLM runs in one process beside the engine's instead of two, and that one is forked: `python -m bench.start`
shows what each saves. A separate worker process is meant for several devices, and waits for EngineCore by spinning on
cores that the model could use; a spawned EngineCore imports all of vLLM again. If ENGINE_ARGS ask for more than one
rank or name an executor, vLLM starts the processes that it would start by itself.
"""

import os
import shlex
from argparse import Namespace
from pathlib import Path
from typing import NoReturn

import torch
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import BaseFrontendArgs
from vllm.platforms import current_platform
from vllm.tool_parsers import ToolParserManager
from vllm.utils.argparse_utils import FlexibleArgumentParser
from vllm.v1.engine.async_llm import AsyncLLM

from everstream.llm import demo_model
from everstream.llm.vllm_stats import engine_stats_enabled
from everstream.processes import die_with_parent
from everstream.settings import Settings, SettingsError

CPU_KV_CACHE = "1G"
FRONT_END_OPTIONS = (
    "chat_template",
    "chat_template_content_format",
    "trust_request_chat_template",
    "trust_request_mm_kwargs",
    "default_chat_template_kwargs",
    "return_tokens_as_token_ids",
    "enable_auto_tool_choice",
    "exclude_tools_when_tool_choice_none",
    "tool_call_parser",
    "tool_parser_plugin",
    "tool_strict_level",
    "enable_prompt_tokens_details",
)
"""The options of vLLM's front end, besides its engine's, that ENGINE_ARGS may have."""


class EngineArgsParser(FlexibleArgumentParser):  # type: ignore[misc] # to mypy it is Any
    def error(self, message: str) -> NoReturn:
        """Report in one line; argparse would print ten screens of usage and exit."""
        raise SettingsError(f"ENGINE_ARGS: {message}")


def start(given: Namespace) -> AsyncLLM:
    """Start vLLM's processes and load the model, as `serve_args` say.

    Call it in the main thread, before the process has other threads, because it may fork.
    """
    # `tokenizer_pool` tokenizes one prompt per thread and bounds its threads. By default, the tokenizer would add one
    # thread per core, for batches.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    args: AsyncEngineArgs = AsyncEngineArgs.from_cli_args(given)
    if current_platform.is_cpu() and args.enforce_eager:
        # vLLM would still compile one function, which counts the tokens that are likelier than the sampled one. At the
        # first request for log probabilities, that stops all streams for 10 to 15 s. Uncompiled, it takes 17 ms for 64
        # such streams instead of 1 [measured on 2 cores].
        torch.compiler.set_stance("force_eager")
    with engine_stats_enabled():
        return _start(args)


def _start(args: AsyncEngineArgs) -> AsyncLLM:
    if not runs_in_one_process(args):
        return AsyncLLM.from_engine_args(args)
    args.distributed_executor_backend = "uni"
    # vLLM's CPU platform turns `uni` back into a worker process unless multiprocessing is off; AsyncLLM still runs
    # EngineCore in its own process.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    config = args.create_engine_config()
    # `create_engine_config` has set this to `spawn`.
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
    # A forked process doesn't load plugins again, so do here what `vllm_plugin` does in a spawned one.
    os.register_at_fork(after_in_child=die_with_parent)
    return AsyncLLM.from_vllm_config(
        config, enable_log_requests=args.enable_log_requests, disable_log_stats=args.disable_log_stats
    )


def runs_in_one_process(args: AsyncEngineArgs) -> bool:
    """Whether these arguments need only one rank, on a CPU, and leave the executor to us."""
    ranks = args.tensor_parallel_size * args.pipeline_parallel_size * args.data_parallel_size
    return current_platform.is_cpu() and ranks == 1 and args.distributed_executor_backend is None


def serve_args(settings: Settings) -> Namespace:
    """Our arguments, then the user's: those of `vllm serve` that matter here. Builds the demo model if needed.

    Raises SettingsError for ENGINE_ARGS that are not among them, and DemoModelError.
    """
    is_demo = settings.model == demo_model.NAME
    model = demo_model.build(settings) if is_demo else Path(settings.model).expanduser()
    # vLLM's statistics cost time at each token; `vllm_stats` takes what it needs.
    given = ["--model", str(model), "--served-model-name", settings.model_name, "--disable-log-stats"]
    if current_platform.is_cpu():
        # vLLM refuses to start if less than gpu_memory_utilization of all memory is free. With the KV cache's size
        # given, it needs no warm-up run either. Compiling would take minutes on a few cores.
        given += ["--gpu-memory-utilization", "0.1", "--kv-cache-memory-bytes", CPU_KV_CACHE, "--enforce-eager"]
    if is_demo:
        # So small a model calls no tool by itself; when forced to, it should keep to the tool's schema.
        given += ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--tool-strict-level", "parameter"]
    parser = AsyncEngineArgs.add_cli_args(BaseFrontendArgs.add_cli_args(EngineArgsParser()))
    args: Namespace = parser.parse_args(given + shlex.split(settings.engine_args))
    _check_front_end(args)
    return args


def _check_front_end(args: Namespace) -> None:
    """Refuse options of vLLM's front end that have no effect here. Raises SettingsError."""
    for name, default in vars(BaseFrontendArgs()).items():
        if name not in FRONT_END_OPTIONS and getattr(args, name) != default:
            raise SettingsError(f"ENGINE_ARGS: --{name.replace('_', '-')} has no effect here")
    if args.enable_auto_tool_choice and not args.tool_call_parser:
        raise SettingsError("ENGINE_ARGS: --enable-auto-tool-choice needs --tool-call-parser")
    if args.tool_parser_plugin:
        ToolParserManager.import_tool_parser(args.tool_parser_plugin)
    if args.tool_call_parser and args.tool_call_parser not in (known := ToolParserManager.list_registered()):
        raise SettingsError(f"ENGINE_ARGS: --tool-call-parser must be one of {', '.join(sorted(known))}")
