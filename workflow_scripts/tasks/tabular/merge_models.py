"""Merge task models that started from one model: before + weight × combined differences to it.

The models are those of clients in a communication round, or the model of a round, merged with the one before. `weights`
are the rows that each learnt from; with the method linear and weight 1 this is FedAvg (McMahan et al. 2017, arXiv
1602.05629), which is also task arithmetic (Ilharco et al. 2023, arXiv 2212.04089). Of each tensor of a difference,

    magnitude_prune   keeps the `density` largest values
    dare_linear       keeps a random part of `density`, scaled up by 1 / density (Yu et al. 2024, arXiv 2311.03099)
    ties, dare_ties   keep values likewise, and then average, for each weight, only those models whose difference has
                      the sign that prevails among all (Yadav et al. 2023, arXiv 2306.01708)

The merge of the original's "scalebio" reward model was never published; its repository names models that were merged
by these methods.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from workflow_scripts.config.load import settings_help
from workflow_scripts.core.checkpoint import model_folder, publish
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.files import read_json
from workflow_scripts.core.pretrained import AutoModelForCausalLM, AutoTokenizer
from workflow_scripts.core.running.cli import add_code_argument, arguments, run
from workflow_scripts.core.running.manifest import content_digest
from workflow_scripts.tasks.tabular.settings import Merge

Weights = dict[str, torch.Tensor]


def merged(
    before: Weights, trained: Sequence[Weights], settings: Merge, seed: int, counts: Sequence[int] | None = None
) -> Weights:
    """Return the merged weights, in the dtype of the trained models.

    `counts` are the rows that each model learnt from; by default all models count alike. Raise BadInput if names or
    shapes differ.
    """
    if any(_shapes(before) != _shapes(weights) for weights in trained):
        raise BadInput("the models have weights of different names or shapes, so they cannot be merged")

    counts = counts or [1] * len(trained)
    shares = [count / sum(counts) for count in counts]
    generator = torch.Generator().manual_seed(seed)
    result = {}

    for name in sorted(before):
        start = before[name].float()
        changes = [pruned(weights[name].float() - start, settings, generator) for weights in trained]
        change = combined(changes, shares, agree=settings.method.endswith("ties"))
        result[name] = (start + settings.weight * change).to(trained[0][name].dtype)

    return result


def pruned(change: torch.Tensor, settings: Merge, generator: torch.Generator) -> torch.Tensor:
    """Return a difference with only the part that the method keeps."""
    if settings.method == "linear":
        return change

    if settings.method.startswith("dare"):
        is_kept = torch.rand(change.shape, generator=generator) < settings.density
        return change * is_kept / settings.density

    kept = max(1, round(settings.density * change.numel()))
    least = change.abs().flatten().kthvalue(change.numel() - kept + 1).values
    return change * (change.abs() >= least)


def combined(changes: Sequence[torch.Tensor], shares: Sequence[float], agree: bool) -> torch.Tensor:
    """Return the weighted mean of differences; with `agree`, of those whose sign prevails at each weight."""
    weighted = [share * change for share, change in zip(shares, changes)]
    total = sum(weighted[1:], weighted[0])
    if not agree:
        return total

    sign = total.sign()
    agreed = torch.zeros_like(total)
    weight = torch.zeros_like(total)
    for share, change in zip(shares, changes):
        is_agreed = (change.sign() == sign) & (change != 0)
        agreed += share * change * is_agreed
        weight += share * is_agreed
    return agreed / weight.clamp(min=torch.finfo(weight.dtype).tiny)


def _shapes(weights: Weights) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in weights.items()}


def main() -> None:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--before", required=True, help="checkpoint.json that training started from")
    parser.add_argument("--trained", required=True, nargs="+", help="checkpoint.json of each trained model")
    parser.add_argument("--settings", required=True, help=settings_help("tabular.merge") + " (or `tabular.fed_merge`)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the methods dare_…")
    parser.add_argument("--output", required=True, help="checkpoint.json to write; the model goes beside it")
    args = parser.parse_args()

    settings = Merge.model_validate_json(args.settings)
    before = AutoModelForCausalLM.from_pretrained(model_folder(args.before), dtype=torch.float32).state_dict()
    counts = [read_json(path)["rows"] for path in args.trained]
    models = [AutoModelForCausalLM.from_pretrained(model_folder(path), dtype=torch.float32) for path in args.trained]
    trained = [model.state_dict() for model in models]
    model = models[0]
    model.load_state_dict(merged(before, trained, settings, args.seed, counts))
    tokenizer = AutoTokenizer.from_pretrained(model_folder(args.trained[0]))

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    inputs = {path: content_digest(path) for path in (args.before, *args.trained)}
    used = settings.model_dump(mode="json") | {"seed": args.seed}
    manifest = publish(args.output, save, {"inputs": inputs, "settings": used, "rows": sum(counts)})
    print(
        f"{settings.method} merge of {len(trained)} with {counts} rows, weight {settings.weight}: policy "
        f"{manifest['digest']}"
    )


if __name__ == "__main__":
    run(main)
