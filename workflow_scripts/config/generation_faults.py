"""Find what does not fit between the section `generate` and the rest of a config."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from workflow_scripts.config.sections import Sampling, Vllm
from workflow_scripts.core.running import plugins

if TYPE_CHECKING:
    from workflow_scripts.config.load import Config

SPECIAL = ("repetition_penalty", "structured")  # keys of sampling that only some engines have (TAKES)


def faults_of_engines(cfg: "Config") -> Iterator[str]:
    """Yield what is wrong with the engines and their settings."""
    generate = cfg.generate

    for version in cfg.versions:
        engine = generate.engine_of(version)
        if not generate.is_remote(version):
            continue
        if version in ("eval", "pool"):
            yield (
                f"generate.{version}.engine: evaluation and selection must run the checkpoint, but `{engine}` calls "
                "a remote endpoint; use transformers or vllm"
            )
        elif not generate.openai:
            yield f"generate.openai: the engine {engine} needs `base_url` and `model`"
        elif getattr(generate, version).top_k:
            yield f"generate.{version}.top_k: the OpenAI protocol has no top_k; set it to 0"

    yield from _faults_of_vllm(cfg)

    gpus = generate.gpus
    split = generate.tensor_parallel
    if split and gpus and gpus % split:
        yield f"generate.gpus {gpus} is not a multiple of generate.tensor_parallel {split}"


def _faults_of_vllm(cfg: "Config") -> Iterator[str]:
    """Settings that only some engines have must not be given for another one."""
    generate = cfg.generate
    used = {version: generate.engine_of(version) for version in cfg.versions if getattr(generate, version)}

    if generate.vllm != Vllm() and "vllm" not in used.values():
        yield f"generate.vllm: no answers are given by vllm; the engine is {' or '.join(sorted(set(used.values())))}"

    samplings = [(f"generate.{version}", getattr(generate, version), engine) for version, engine in used.items()]
    samplings += [(key, sampling, used["eval"]) for key, sampling in _of_sets(cfg).items()]

    for section, sampling, engine in samplings:
        for key in SPECIAL:
            is_used = getattr(sampling, key) != Sampling.model_fields[key].default
            if is_used and key not in _takes(engine):
                able = [name for name in plugins.names("engines") if key in _takes(name)]
                yield f"{section}.{key}: the engine {engine} cannot do this; use {' or '.join(able)}"


def _of_sets(cfg: "Config") -> dict[str, Sampling]:
    """Return the sampling of the eval sets that have their own, by its key."""
    sets = cfg.prompts.sets_apart.items()
    return {f"prompts.eval.{name}.sampling": one.sampling.over(cfg.generate.eval) for name, one in sets if one.sampling}


def _takes(engine: str) -> tuple[str, ...]:
    return plugins.constants("engines", engine).get("TAKES", ())


def faults_of_sampling(cfg: "Config") -> Iterator[str]:
    """Answers to learn from must be sampled from the distribution that log-probs are computed for."""
    evaluated = {"generate.eval": cfg.generate.eval} if cfg.evaluates else {}
    for key, sampling in (evaluated | _of_sets(cfg)).items():
        if sampling.samples > 1 and sampling.temperature == 0:
            yield (
                f"{key}.samples {sampling.samples}: with temperature 0, all answers to a question are alike; use "
                "samples: 1, or a temperature above 0"
            )
    if cfg.data.source:
        return

    auto = cfg.generate.auto
    trigger = cfg.generate.trigger

    compares_answers = cfg.data.advantage in ("group", "group_std", "rloo")
    if compares_answers and cfg.answering_rounds and auto.samples == 1 and not trigger:
        yield (
            f"generate.auto.samples: 1 answer is no group, and data.advantage {cfg.data.advantage} compares the "
            "answers to one question with one another; use 8, or another advantage"
        )
    if auto.temperature == 0:
        yield "generate.auto.temperature: 0 is greedy, but a round learns from samples; use 1.0"
    if trigger and trigger.temperature != auto.temperature:
        yield "generate.trigger.temperature: it must equal generate.auto.temperature, since log-probs are of logits / T"

    for name, sampling in (("auto", auto), ("trigger", trigger)):
        if not (sampling and cfg.train.needs_behaviour):
            continue
        if sampling.top_p < 1 or sampling.top_k:
            yield (
                f"generate.{name}: train.objective {cfg.train.objective} takes ratios of the full distribution, so "
                f"answers must be sampled with top_p 1 and top_k 0, found {sampling.top_p} and {sampling.top_k}"
            )
        for key in SPECIAL:
            if getattr(sampling, key) != Sampling.model_fields[key].default:
                yield (
                    f"generate.{name}.{key}: it changes the distribution that answers are sampled from, but "
                    f"train.objective {cfg.train.objective} takes ratios of the policy's own; remove this key"
                )
