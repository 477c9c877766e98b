"""Ask vLLM's engine for answers to one prompt, in vLLM's own environment; print them with facts about the engine.

python -m tests.engines.ask_vllm MODEL '{"settings": {…}, "sampling": {…}, "stop": […], "count": 4}'
"""

import asyncio
import json
import sys
from typing import Any

from workflow_scripts import engines


async def ask(engine: Any, prompt: str, count: int, max_tokens: int) -> list[Any]:
    """Return answers that are computed at the same time."""
    tokens = engine.tokenizer.encode(prompt)
    async with engine.running():
        requests = [engines.Request(tokens, seed, max_tokens, f"c{seed}") for seed in range(count)]
        return await asyncio.gather(*map(engine.complete, requests))


def main() -> None:
    model, values = sys.argv[1], json.loads(sys.argv[2])
    settings = {"threads": 1, "dtype": "float32", "vllm": values.get("settings", {})}
    sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": 0} | values.get("sampling", {})
    engine = engines.load("vllm", model=model, settings=settings, sampling=sampling, stop=values.get("stop", ()))
    answers = asyncio.run(ask(engine, "What is 3 + 4?", values.get("count", 4), values.get("max_tokens", 24)))

    cache = engine.engine.vllm_config.cache_config
    facts = {
        "window": engine.window,
        "slots": engine.slots,
        "caches_prefixes": cache.enable_prefix_caching,
        "version": engine.version,
        "usage": engine.usage,
        "answers": [
            {
                "text": engine.tokenizer.decode(answer.tokens, skip_special_tokens=True),
                "tokens": len(answer.tokens),
                "logps": len(answer.logps),
                "finish": answer.finish,
            }
            for answer in answers
        ],
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
