"""The vLLM engine, within this process: continuous batching, cached prefixes, one model over all visible GPUs.

Each turn of a conversation is a new request, whose earlier turns are in the prefix cache. Seeds are per request. The
answers of two runs agree up to floating point, because vLLM composes its batches as memory allows. GPUs beyond those
that one replica of the model needs hold further replicas (core/running/replicas.py).
"""

import os
from collections.abc import Sequence
from typing import Any

import torch

from workflow_scripts.core.pretrained import AutoTokenizer
from workflow_scripts.engines import Completion, Request

ENVIRONMENT = "vllm"  # envs/vllm.yaml
PACKAGES = ("vllm", "torch", "transformers", "pyarrow")
GPU_DISTRIBUTION = "vllm"  # the build for CPUs has another name
SPLITS_MODEL = True  # over generate.tensor_parallel GPUs

VARIABLES = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine ends with its job
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # jobs share the cores, as Snakemake counts them
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB, without a GPU
    "VLLM_NO_USAGE_STATS": "1",
}


class Engine:
    """Generates with vLLM."""

    def __init__(self, model: str, settings: dict[str, Any], sampling: dict[str, Any], stop: Sequence[str]):
        for name, value in VARIABLES.items():
            os.environ.setdefault(name, value)
        os.environ["OMP_NUM_THREADS"] = str(settings["threads"])

        import vllm  # type: ignore[import-not-found]  # it reads the environment when it is imported

        self.vllm: Any = vllm
        gpus = torch.cuda.device_count()
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.llm = self.vllm.LLM(
            model=model,
            dtype=settings["dtype"],
            tensor_parallel_size=gpus or 1,
            enable_prefix_caching=True,
            enforce_eager=not gpus,  # compiling takes longer than a round of CPU size
            enable_chunked_prefill=bool(gpus),  # on CPUs it fails with seeds: their generators cannot be rewound
            logprobs_mode="processed_logprobs",  # of logits / temperature
            seed=0,  # for requests without a seed; there are none
        )
        self.window = self.llm.llm_engine.model_config.max_model_len
        self.sampling = sampling
        self.stop = list(stop)
        self.is_full_support = sampling["top_p"] == 1 and not sampling["top_k"]
        self.version = {
            "engine": "vllm",
            "vllm": self.vllm.__version__,
            "torch": torch.__version__,
            "dtype": settings["dtype"],
        }

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """Return a completion of each request, in order."""
        prompts = [{"prompt_token_ids": request.tokens} for request in requests]
        params = [self._params(request) for request in requests]
        outputs = self.llm.generate(prompts, params, use_tqdm=False)
        return [self._completion(output.outputs[0]) for output in outputs]

    def _params(self, request: Request) -> Any:
        return self.vllm.SamplingParams(
            temperature=self.sampling["temperature"],
            top_p=self.sampling["top_p"],
            top_k=self.sampling["top_k"],
            seed=request.seed % 2**62,
            max_tokens=request.max_tokens,
            stop=self.stop,
            include_stop_str_in_output=True,
            skip_special_tokens=False,
            logprobs=0,  # of the sampled token only
        )

    def _completion(self, output: Any) -> Completion:
        """Return vLLM's output. With top_p or top_k its log-probs are of the remaining tokens, so they are dropped."""
        tokens = list(output.token_ids)
        logps = []
        if self.is_full_support:
            logps = [step[token].logprob for step, token in zip(output.logprobs, tokens)]

        if output.finish_reason == "stop":
            return Completion(tokens, "stop" if isinstance(output.stop_reason, str) else "eos", logps)
        if output.finish_reason != "length":
            raise RuntimeError(f"vLLM ended a request by {output.finish_reason!r}; only stop and length are known")
        return Completion(tokens, "length", logps)
