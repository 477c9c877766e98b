"""Merge a round's task model with the one it started from: before + weight × (trained - before).

This stands in for the merge of the original's "scalebio" reward model, which was never published. dare_linear keeps a
random part of each difference, scaled up by 1 / density (Yu et al. 2024, arXiv 2311.03099).
"""

import torch

from workflow_scripts.core.checkpoint import model_folder, publish
from workflow_scripts.core.running.cli import arguments, run
from workflow_scripts.core.running.manifest import content_digest
from workflow_scripts.core.pretrained import AutoModelForCausalLM, AutoTokenizer
from workflow_scripts.core.errors import BadInput
from workflow_scripts.tasks.tabular.settings import Merge


def merged(before: dict, trained: dict, settings: Merge, seed: int) -> dict:
    """State dicts of equal names and shapes, in the arithmetic of `trained`; else BadInput."""
    shapes = [{name: tuple(value.shape) for name, value in one.items()} for one in (before, trained)]
    if shapes[0] != shapes[1]:
        raise BadInput("the two models have weights of different names or shapes, so they cannot be merged")
    generator, result = torch.Generator().manual_seed(seed), {}
    for name in sorted(trained):
        change = trained[name].float() - before[name].float()
        if settings.method == "dare_linear":
            kept = torch.rand(change.shape, generator=generator) < settings.density
            change = change * kept / settings.density
        result[name] = (before[name].float() + settings.weight * change).to(trained[name].dtype)
    return result


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--before", required=True, help="checkpoint.json that training started from")
    parser.add_argument("--trained", required=True, help="checkpoint.json of the trained model")
    parser.add_argument("--settings", required=True, help="the config's `tabular.merge` as JSON")
    parser.add_argument("--seed", type=int, default=0, help="of dare_linear's random part")
    parser.add_argument("--output", required=True, help="checkpoint.json to write; the model goes beside it")
    args = parser.parse_args()
    settings, paths = Merge.model_validate_json(args.settings), [args.before, args.trained]
    before, model = (AutoModelForCausalLM.from_pretrained(model_folder(path), dtype=torch.float32) for path in paths)
    model.load_state_dict(merged(before.state_dict(), model.state_dict(), settings, args.seed))
    tokenizer = AutoTokenizer.from_pretrained(model_folder(args.trained))

    def save(folder) -> None:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    inputs = {path: content_digest(path) for path in paths}
    used = settings.model_dump(mode="json") | {"seed": args.seed}
    manifest = publish(args.output, save, {"inputs": inputs, "settings": used})
    print(f"{settings.method} merge, weight {settings.weight}: policy {manifest['digest']}")


if __name__ == "__main__":
    run(main)
