"""The vLLM engine, within this process: continuous batching, cached prefixes, one model over all visible GPUs.

Requests enter between two steps of the engine, as soon as they are ready. Each turn of a conversation is a new request,
whose earlier turns are in the prefix cache. Seeds are per request. The answers of two runs agree up to floating point,
because vLLM composes its batches as memory allows. GPUs beyond those that one replica of the model needs hold further
replicas (core/running/replicas.py).
"""

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import torch

from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.pretrained import AutoTokenizer
from workflow_scripts.engines import Completion, Request

ENVIRONMENT = "vllm"  # envs/vllm.yaml
PACKAGES = ("vllm", "torch", "transformers", "pyarrow")
GPU_DISTRIBUTION = "vllm"  # the build for CPUs has another name
TAKES = ("repetition_penalty", "structured")
STAYS = ("dtype", "threads", "vllm")
SPLITS_MODEL = True  # over generate.tensor_parallel GPUs

RESULTS = ("max_model_len", "quantization", "kv_cache_dtype")  # settings that answers depend on
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

        import vllm as library  # type: ignore[import-not-found]  # it reads the environment when it is imported
        from vllm.usage.usage_lib import UsageContext  # type: ignore[import-not-found]

        vllm: Any = library
        self.vllm = vllm
        gpus = torch.cuda.device_count()
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        options = {key: value for key, value in settings.get("vllm", {}).items() if value is not None}
        arguments = vllm.EngineArgs(
            model=model,
            dtype=settings["dtype"],
            tensor_parallel_size=gpus or 1,
            enforce_eager=not gpus,  # compiling takes longer than a round of CPU size
            enable_chunked_prefill=bool(gpus),  # on CPUs it fails with seeds: their generators cannot be rewound
            logprobs_mode="processed_logprobs",  # of logits / temperature
            seed=0,  # for requests without a seed; there are none
            **({"enable_prefix_caching": True} | options),
        )
        try:
            config = arguments.create_engine_config(UsageContext.LLM_CLASS)
        except ValueError as error:
            raise BadInput(f"generate.vllm: vLLM cannot run {model} with these settings: {error}") from error

        self.load = Load()
        self.engine: Any = vllm.LLMEngine.from_vllm_config(
            config, usage_context=UsageContext.LLM_CLASS, stat_loggers=[lambda config, number: self.load]
        )
        self.window = self.engine.model_config.max_model_len
        self.slots = self.engine.vllm_config.scheduler_config.max_num_seqs
        self.playing = 2 * self.slots
        self.sample_by(sampling, stop)
        self.version = {
            "engine": "vllm",
            "vllm": vllm.__version__,
            "torch": torch.__version__,
            "dtype": settings["dtype"],
            **{key: options[key] for key in RESULTS if options.get(key, "auto") != "auto"},
        }
        self.numbers = itertools.count()
        self.waiting: dict[str, asyncio.Future[Completion]] = {}  # by the number of the request
        self.fault: Exception | None = None

    def sample_by(self, sampling: dict[str, Any], stop: Sequence[str]) -> None:
        """Sample further answers in this way, and observe the load anew."""
        self.load.start()
        self.sampling = sampling
        self.stop = list(stop)
        self.penalty = sampling.get("repetition_penalty", 1.0)
        self.form = sampling.get("structured")
        self.is_full_support = sampling["top_p"] == 1 and not sampling["top_k"] and self.penalty == 1 and not self.form

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Let the engine work on the running event loop."""
        self.is_new = asyncio.Event()
        self.load.start()
        steps = asyncio.create_task(self._step())
        try:
            yield
        finally:
            steps.cancel()
            self.load.stop()

    async def complete(self, request: Request) -> Completion:
        """Return the completion of a request, while others are computed."""
        if self.fault:
            raise RuntimeError("vLLM has failed; the first error says how") from self.fault

        number = str(next(self.numbers))
        self.engine.add_request(number, {"prompt_token_ids": request.tokens}, self._params(request))
        self.waiting[number] = asyncio.get_running_loop().create_future()
        self.is_new.set()

        try:
            return await self.waiting[number]
        except asyncio.CancelledError:
            self.waiting.pop(number, None)
            self.engine.abort_request([number])
            raise

    async def _step(self) -> None:
        """Step the engine while it has requests. Between two steps, requests end and new ones enter."""
        while True:
            await self.is_new.wait()
            self.is_new.clear()
            self.load.resume()

            try:
                while self.engine.has_unfinished_requests():
                    for output in self.engine.step():
                        future = self.waiting.pop(output.request_id, None)
                        if future and not future.done():  # else nobody waits for it any more
                            future.set_result(self._completion(output.outputs[0]))
                    await asyncio.sleep(0)  # conversations go on here
            except Exception as error:
                self.fault = error
                for future in self.waiting.values():
                    future.set_exception(error)
                return

    @property
    def usage(self) -> dict[str, float]:
        """Return how full the engine was: the mean number of requests that it worked on, and the most it can."""
        return {"mean_running_requests": self.load.mean, "max_num_seqs": self.slots}

    def _params(self, request: Request) -> Any:
        library = self.vllm.sampling_params
        form = None
        if self.form:
            form = library.StructuredOutputsParams(regex=self.form["regex"], json=self.form["json_schema"])

        return library.SamplingParams(
            temperature=self.sampling["temperature"],
            top_p=self.sampling["top_p"],
            top_k=self.sampling["top_k"],
            repetition_penalty=self.penalty,
            structured_outputs=form,
            seed=request.seed % 2**62,
            max_tokens=request.max_tokens,
            stop=self.stop,
            include_stop_str_in_output=True,
            skip_special_tokens=False,
            logprobs=0,  # of the sampled token only
            output_kind=library.RequestOutputKind.FINAL_ONLY,
        )

    def _completion(self, output: Any) -> Completion:
        """Return vLLM's output. Its log-probs are dropped if they are not of the policy's whole distribution."""
        tokens = list(output.token_ids)
        logps = []
        if self.is_full_support:
            logps = [step[token].logprob for step, token in zip(output.logprobs, tokens)]

        if output.finish_reason == "stop":
            return Completion(tokens, "stop" if isinstance(output.stop_reason, str) else "eos", logps)
        if output.finish_reason != "length":
            raise RuntimeError(f"vLLM ended a request by {output.finish_reason!r}; only stop and length are known")
        return Completion(tokens, "length", logps)


class Load:
    """Observes how many requests the engine works on. vLLM calls `record` after each step."""

    def __init__(self):
        self.start()

    def start(self) -> None:
        """Begin the observation anew."""
        self.begin = self.last = time.monotonic()
        self.end: float | None = None
        self.requests_times_seconds = 0.0

    def resume(self) -> None:
        """Take note that the engine did nothing until now."""
        self.last = time.monotonic()

    def stop(self) -> None:
        """End the observation."""
        self.end = time.monotonic()

    @property
    def mean(self) -> float:
        """The mean number of requests, over the time since the start, or between start and stop."""
        end = time.monotonic() if self.end is None else self.end
        return self.requests_times_seconds / max(1e-9, end - self.begin)

    def record(self, scheduler_stats: Any, *_: Any, **__: Any) -> None:
        """Take note of a step."""
        now = time.monotonic()
        if scheduler_stats is not None:
            self.requests_times_seconds += scheduler_stats.num_running_reqs * (now - self.last)
        self.last = now

    def log_engine_initialized(self) -> None:
        """Do nothing; vLLM calls this once."""

    def log(self) -> None:
        """Do nothing; vLLM calls this every few seconds."""
