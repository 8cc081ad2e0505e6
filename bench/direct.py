"""`AsyncLLM.generate` alone, the baseline for Everstream's overhead: a process that reads commands from its stdin.

Each line is a JSON object with prompts, `max_tokens` and `at_once`, the number of prompts to run concurrently. The
reply is one JSON line. Used by `bench.overhead` and `bench.profile`.
"""

import asyncio
import json
import secrets
import sys
import time

import uvloop

from everstream.settings import PROJECT_ROOT, load_settings

sys.path.insert(0, str(PROJECT_ROOT))


async def answer(llm, tokens, max_tokens):
    """Returns the seconds to the first token and the number of tokens."""
    from vllm import SamplingParams
    from vllm.inputs.engine import tokens_input
    from vllm.sampling_params import RequestOutputKind

    params = SamplingParams(temperature=0, max_tokens=max_tokens, output_kind=RequestOutputKind.DELTA)
    started, ttft_s, count = time.perf_counter(), 0.0, 0
    async for output in llm.generate(tokens_input(tokens), params, secrets.token_hex(8)):
        ttft_s = ttft_s or time.perf_counter() - started
        count += len(output.outputs[0].token_ids)
    return ttft_s, count


async def main():
    from everstream.llm import vllm_start
    from everstream.llm.messages import as_messages

    llm = vllm_start.start(vllm_start.serve_args(load_settings()))
    tokenizer = llm.get_tokenizer()
    say({"ready": True})
    while command := await asyncio.to_thread(sys.stdin.readline):
        request = json.loads(command)
        prompts = [
            tokenizer.apply_chat_template(as_messages({"prompt": text}), add_generation_prompt=True, return_dict=False)
            for text in request["prompts"]
        ]
        limit = asyncio.Semaphore(request["at_once"])

        async def one(tokens, limit=limit, max_tokens=request["max_tokens"]):
            async with limit:
                return await answer(llm, tokens, max_tokens)

        started = time.perf_counter()
        answers = await asyncio.gather(*map(one, prompts))
        seconds = time.perf_counter() - started
        say({"ttft_s": [ttft_s for ttft_s, _ in answers], "tokens": sum(n for _, n in answers), "seconds": seconds})


def say(value):
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(main())
