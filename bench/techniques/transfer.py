"""Transfer: layers that learned from other examples, and which of them go on learning."""

from __future__ import annotations

import copy
import dataclasses
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from bench.data.splits import Dataset, Split
from bench.errors import Refusal, SpecError, suggest
from bench.registry import technique
from bench.spec import Range
from bench.storage import CONVOLUTIONS, STORABLE
from bench.subject import Recipe, Subject, evaluating
from bench.techniques.parameters import Count
from bench.techniques.recipes import require_recipe
from bench.training import fit, refusing_single_examples, split_examples

NOISE_SIZE = 32
GAN_LEARNING_RATE = 4e-4
CORRUPTION = 0.1
"""Standard deviation of the noise that the autoencoder removes, in that of the inputs."""


@technique("pretrain", stage="recipe", needs=("training data",))
def pretrain(
    subject: Subject,
    way: Literal["autoencoder", "gan", "supervised"],
    epochs: Count = 10,
) -> Subject:
    """All layers but the last learn first, from examples whose labels the model does not get.

    The examples are those that few-labels has left, else the train split. autoencoder: to rebuild
    noisy inputs through a decoder (mean squared error). gan: to tell inputs from those that a
    generator makes. supervised: to tell the first half of the classes apart. What was built for
    it is thrown away; the model's last layer begins anew.
    Source: Vincent et al., ICML 2008 (denoising); Radford et al., "DCGAN", arXiv:1511.06434;
    Yosinski et al., "How transferable are features in deep neural networks?", arXiv:1411.1792.
    """
    recipe = require_recipe(subject, "pretrain")
    assert subject.data is not None
    module = copy.deepcopy(subject.module)
    whole = nn.Sequential(module)
    head = find_head(whole, subject.inputs)
    last = whole.get_submodule(head)
    whole.set_submodule(head, nn.Identity())
    with torch.no_grad():
        features = evaluating(whole)(*subject.inputs).shape[1]
    learn = {"autoencoder": _learn_to_rebuild, "gan": _learn_to_doubt, "supervised": _learn_classes}
    learn[way](whole, features, subject.data, dataclasses.replace(recipe, epochs=epochs))
    whole.set_submodule(head, last)
    return dataclasses.replace(subject, module=whole[0], origin="")


def check_layers(subject: Subject, layers: str | list[str] = "all", **_: object) -> None:
    """Raise SpecError for a layer that the model does not have."""
    choose_layers(subject.module, layers)


@technique("finetune", stage="recipe", needs=("training data",), check=check_layers)
def finetune(
    subject: Subject,
    layers: str | list[str] = "all",
    epochs: Count | None = None,
    learning_rate: Annotated[float, Range(1e-9)] | None = None,
) -> Subject:
    """Only some layers are trained: all, head, first, last-N, linear, convolution, or by name.

    head is the last layer with weights, last-N the last N of them. The others keep their weights
    and the statistics of their norms. Trained on as the recipe says: from fresh weights, or from
    those that `pretrain` or the model itself has left.
    Source: Yosinski et al., arXiv:1411.1792; Kornblith et al., "Do Better ImageNet Models Transfer
    Better?", arXiv:1805.08974.
    """
    recipe = subject.recipe or Recipe(epochs=10)
    if subject.data is None:
        raise Refusal("finetune needs training data, and this model has none")
    module = copy.deepcopy(subject.module)
    chosen = choose_layers(module, layers)
    module.requires_grad_(False)
    for layer in chosen:
        layer.requires_grad_(True)
    changed = dataclasses.replace(
        recipe,
        epochs=epochs or recipe.epochs,
        learning_rate=learning_rate or recipe.learning_rate,
    )
    return dataclasses.replace(subject, module=module, recipe=changed, origin="")


def choose_layers(module: nn.Module, layers: str | list[str]) -> list[nn.Module]:
    """Return the layers that a choice names; raise SpecError for a name that is not there."""
    if layers == "all":
        return [module]
    weighted = [part for part in module.modules() if isinstance(part, STORABLE)]
    kinds: dict[Any, Any] = {"linear": nn.Linear, "convolution": CONVOLUTIONS}
    if isinstance(layers, str) and layers in kinds:
        chosen = [part for part in weighted if isinstance(part, kinds[layers])]
    elif layers in ("head", "first"):
        chosen = weighted[-1:] if layers == "head" else weighted[:1]
    elif isinstance(layers, str) and layers.startswith("last-") and layers[5:].isdigit():
        chosen = weighted[-int(layers[5:]) :] if int(layers[5:]) else []
    else:
        chosen = [
            _named(module, name) for name in ([layers] if isinstance(layers, str) else layers)
        ]
    if not chosen:
        raise Refusal(f"finetune: this model has no layer for {layers!r}")
    return chosen


def _named(module: nn.Module, name: str) -> nn.Module:
    known = {path: part for path, part in module.named_modules() if path}
    if name not in known:
        words = ("all", "head", "first", "last-2", "linear", "convolution")
        raise SpecError(
            f"no layer {name!r}.{suggest(name, [*words, *known])} Write {', '.join(words)}"
            f" or names of layers: {', '.join(list(known)[:8])}{', …' if len(known) > 8 else ''}."
        )
    named: nn.Module = known[name]
    return named


def find_head(module: nn.Module, inputs: tuple[Tensor, ...]) -> str:
    """Return the name of the linear layer whose outputs are the model's; Refusal if none is."""
    made: dict[str, Tensor] = {}
    names = {part: name for name, part in module.named_modules() if type(part) is nn.Linear}
    hooks = [
        part.register_forward_hook(lambda part, _, out: made.__setitem__(names[part], out))
        for part in names
    ]
    with torch.no_grad():
        outputs = evaluating(module)(*inputs)
    for hook in hooks:
        hook.remove()
    for name, value in made.items():
        if value is outputs:
            return name
    raise Refusal("pretrain needs a linear layer whose outputs are the model's")


def _learn_to_rebuild(body: nn.Module, features: int, data: Dataset, recipe: Recipe) -> None:
    inputs = data.unlabelled.inputs
    noise = CORRUPTION * float(inputs.std())
    decoder = nn.Sequential(
        nn.Linear(features, 2 * features), nn.ReLU(), nn.Linear(2 * features, inputs[0].numel())
    )

    whole = nn.Sequential(Corrupt(noise), body, decoder)
    fit(whole, inputs, (inputs.flatten(1),), nn.functional.mse_loss, recipe)


class Corrupt(nn.Module):
    """Adds noise of a deviation to what it takes, in training."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation

    def forward(self, values: Tensor) -> Tensor:
        """Return noisy values in training, the values themselves otherwise."""
        return values + self.deviation * torch.randn_like(values) if self.training else values


def _learn_classes(body: nn.Module, features: int, data: Dataset, recipe: Recipe) -> None:
    examples = data.spare or data.train
    half = max(2, data.classes // 2)
    rows = examples.labels < half
    few = Split(examples.inputs[rows], examples.labels[rows])
    whole = nn.Sequential(body, nn.Linear(features, half))
    fit(whole, few.inputs, (few.labels,), nn.functional.cross_entropy, recipe)


def _learn_to_doubt(body: nn.Module, features: int, data: Dataset, recipe: Recipe) -> None:
    """Non-saturating loss; Adam with the paper's moments; a step of each player for a batch."""
    inputs = data.unlabelled.inputs
    generator = nn.Sequential(
        nn.Linear(NOISE_SIZE, 128), nn.ReLU(), nn.Linear(128, 256), nn.ReLU(),
        nn.Linear(256, inputs[0].numel()),
    )  # fmt: skip
    judge = nn.Sequential(body, nn.Linear(features, 1)).train()
    judge_steps, generator_steps = (
        torch.optim.Adam(part.parameters(), GAN_LEARNING_RATE, betas=(0.5, 0.999))
        for part in (judge, generator)
    )
    doubt = nn.functional.binary_cross_entropy_with_logits
    for _ in range(recipe.epochs):
        for rows in split_examples(len(inputs), recipe.batch_size):
            real = inputs[rows]
            made = generator(torch.randn(len(rows), NOISE_SIZE)).view_as(real)
            truth = torch.cat([torch.ones(len(rows), 1), torch.zeros(len(rows), 1)])
            judge_steps.zero_grad(set_to_none=True)
            doubt(judge(torch.cat([real, made.detach()])), truth).backward()
            judge_steps.step()
            generator_steps.zero_grad(set_to_none=True)
            with refusing_single_examples():
                fooled = judge(made)
            doubt(fooled, torch.ones(len(rows), 1)).backward()
            generator_steps.step()
    judge.eval()
