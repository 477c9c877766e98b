"""Merge a round's task model with the one that it started from: before + weight × (trained - before).

This stands in for the merge of the original's "scalebio" reward model, which was never published. The method
dare_linear keeps a random part of each difference, scaled up by 1 / density (Yu et al. 2024, arXiv 2311.03099).
"""

from pathlib import Path

import torch

from workflow_scripts.core.checkpoint import model_folder, publish
from workflow_scripts.core.errors import BadInput
from workflow_scripts.core.pretrained import AutoModelForCausalLM, AutoTokenizer
from workflow_scripts.core.running.cli import add_code_argument, arguments, run
from workflow_scripts.core.running.manifest import content_digest
from workflow_scripts.tasks.tabular.settings import Merge

Weights = dict[str, torch.Tensor]


def merged(before: Weights, trained: Weights, settings: Merge, seed: int) -> Weights:
    """Return the merged weights, in the dtype of `trained`. Raise BadInput if names or shapes differ."""
    if _shapes(before) != _shapes(trained):
        raise BadInput("the two models have weights of different names or shapes, so they cannot be merged")

    generator = torch.Generator().manual_seed(seed)
    result = {}
    for name in sorted(trained):
        change = trained[name].float() - before[name].float()
        if settings.method == "dare_linear":
            is_kept = torch.rand(change.shape, generator=generator) < settings.density
            change = change * is_kept / settings.density
        result[name] = (before[name].float() + settings.weight * change).to(trained[name].dtype)

    return result


def _shapes(weights: Weights) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in weights.items()}


def main() -> None:
    parser = arguments(__doc__)
    add_code_argument(parser)
    parser.add_argument("--before", required=True, help="checkpoint.json that training started from")
    parser.add_argument("--trained", required=True, help="checkpoint.json of the trained model")
    parser.add_argument("--settings", required=True, help="the config's `tabular.merge`, as JSON")
    parser.add_argument("--seed", type=int, default=0, help="random seed of dare_linear")
    parser.add_argument("--output", required=True, help="checkpoint.json to write; the model goes beside it")
    args = parser.parse_args()

    settings = Merge.model_validate_json(args.settings)
    before = AutoModelForCausalLM.from_pretrained(model_folder(args.before), dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(model_folder(args.trained), dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(model_folder(args.trained))
    model.load_state_dict(merged(before.state_dict(), model.state_dict(), settings, args.seed))

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    inputs = {path: content_digest(path) for path in (args.before, args.trained)}
    used = settings.model_dump(mode="json") | {"seed": args.seed}
    manifest = publish(args.output, save, {"inputs": inputs, "settings": used})
    print(f"{settings.method} merge, weight {settings.weight}: policy {manifest['digest']}")


if __name__ == "__main__":
    run(main)
