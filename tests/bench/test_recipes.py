"""Recipes: how a model is trained, held against solutions that are known in closed form."""

from collections.abc import Callable
from dataclasses import replace
from math import isnan

import pytest
import torch
from torch import Tensor, nn

from bench import Refusal, SpecError, Subject, registry
from bench.data import Dataset, Split
from bench.subject import Optimizer, Recipe, as_subject
from bench.tasks import task_loss
from bench.training import dropping, fit, train, tune_accuracy, tune_quality, updates_per_epoch

OPTIMIZERS = ("gd", "sgd", "momentum", "rmsprop", "adam", "adamw")


def apply(technique: str, subject: Subject, seed: int = 0) -> Subject:
    torch.manual_seed(seed)
    made: Subject = registry.build("technique", technique, subject)
    return made


def untrained(name: str) -> Subject:
    torch.manual_seed(0)
    subject = as_subject(registry.build("model", name), name)
    return Subject(subject.module, subject.inputs, subject.data, subject.recipe, origin=name)


def line() -> tuple[Subject, Tensor]:
    """A regression on three independent features with known least-squares weights."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(200, 3, generator=generator, dtype=torch.double)
    drawn = drawn - drawn.mean(0)
    inputs = torch.linalg.qr(drawn).Q * 200**0.5  # XᵀX / n = 1
    best = torch.tensor([2.0, -1.0, 0.1], dtype=torch.double)
    labels = (inputs @ best + 3).float()
    split = Split(inputs.float(), labels)
    data = Dataset("line", split, split, split, 0)
    recipe = Recipe(epochs=400, learning_rate=0.2, optimizer="gd")
    return Subject(nn.Linear(3, 1), (split.inputs[:4],), data, recipe), best.float()


def test_gradient_descent_finds_the_least_squares_solution() -> None:
    subject, best = line()
    module = train(subject).module
    assert torch.allclose(module.weight[0], best, atol=1e-4)
    assert module.bias.item() == pytest.approx(3, abs=1e-4)


def test_l2_finds_the_ridge_solution_and_l1_the_soft_threshold() -> None:
    subject, best = line()
    ridge = train(apply("l2(0.5)", subject)).module
    assert torch.allclose(ridge.weight[0], best / 1.5, atol=1e-3)
    lasso = train(apply("l1(0.5)", subject)).module
    assert torch.allclose(lasso.weight[0], torch.tensor([1.75, -0.75, 0.0]), atol=0.01)


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.as_tensor(self.second(self.first(inputs))).sum(1)


@pytest.mark.parametrize("device", ["cpu:0", "cuda"])
def test_a_model_is_trained_on_the_device_that_is_asked_for_and_comes_back(device: str) -> None:
    """The processor by its other name goes the same way as a card."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA card here")
    subject, _ = line()
    torch.manual_seed(0)
    tied = Subject(Tied(), subject.inputs, subject.data, Recipe(epochs=5))
    ways: list[list[float]] = [[], []]
    torch.manual_seed(1)
    here = train(tied, ways[0])
    torch.manual_seed(1)
    there = train(tied, ways[1], device)
    assert there.notes == (f"trained on {device}",)
    assert here.notes == ()
    assert there.data is tied.data
    assert there.module.first.weight is there.module.second.weight
    for mine, theirs in zip(here.module.parameters(), there.module.parameters(), strict=True):
        assert theirs.device.type == "cpu"
        assert torch.allclose(mine, theirs, atol=1e-3)
    assert ways[1] == pytest.approx(ways[0], abs=1e-3)
    untrained = Subject(nn.Linear(3, 1), subject.inputs)
    assert train(untrained, device="cuda") is untrained, "there is nothing to train"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns(name: str) -> None:
    subject = untrained("digits-mlp")
    torch.manual_seed(0)
    made = train(apply(f"optimizer({name!r}, epochs=10)", subject))
    assert tune_accuracy(made) > (0.3 if name == "gd" else 0.75)


def test_gradient_descent_updates_once_an_epoch_and_the_others_once_a_batch() -> None:
    updates: list[int] = []
    for name in ("gd", "sgd"):
        subject = apply(f"optimizer({name!r})", untrained("digits-mlp"))
        assert subject.data is not None
        assert subject.recipe is not None
        count = 0

        def note() -> None:
            nonlocal count
            count += 1

        examples = subject.data.train
        fit(subject.module, examples.inputs, (examples.labels,), nn.functional.cross_entropy,
            Recipe(2, 100, optimizer=subject.recipe.optimizer), note)  # fmt: skip
        updates.append(count)
    assert updates == [2, 20]


def test_dropout_zeroes_activations_in_training_and_leaves_nothing_behind() -> None:
    module = nn.Sequential(nn.Linear(4, 1000), nn.ReLU())
    with torch.no_grad():
        module[0].bias.fill_(1e3)
    inputs = torch.ones(10, 4)
    torch.manual_seed(0)
    with dropping(module, 0.3):
        dropped = module.train()(inputs)
        whole = module.eval()(inputs)
    assert float((dropped == 0).double().mean()) == pytest.approx(0.3, abs=0.03)
    assert not (whole == 0).any()
    assert torch.equal(module.train()(inputs), whole)


@pytest.mark.slow
def test_dropout_changes_what_is_learned_but_not_the_modules() -> None:
    subject = untrained("digits-mlp")
    torch.manual_seed(1)
    plain = train(subject)
    torch.manual_seed(1)
    made = train(apply("dropout(0.5)", subject))
    assert repr(made.module) == repr(plain.module)
    assert not torch.equal(made.module[1].weight, plain.module[1].weight)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("relu", nn.ReLU), ("sigmoid", nn.Sigmoid), ("tanh", nn.Tanh), ("gelu", nn.GELU)],
)
def test_every_activation_is_replaced(name: str, kind: type[nn.Module]) -> None:
    made = apply(f"activation({name!r})", untrained("mnist1d-cnn"))
    found = [type(part) for part in made.module if type(part).__module__.endswith("activation")]
    assert found == [kind] * 4


def test_a_models_own_output_activation_is_kept() -> None:
    made = apply("activation('tanh')", untrained("dense-64-32-1"))
    kinds = [type(part).__name__ for part in made.module]
    assert kinds == ["Flatten", "Linear", "Tanh", "Linear", "Tanh", "Linear", "Sigmoid"]


def test_width_and_depth_build_the_model_anew() -> None:
    made = apply("depth(1.5)", apply("width(0.5)", untrained("digits-mlp")))
    widths = [layer.out_features for layer in made.module if isinstance(layer, nn.Linear)]
    assert widths == [64, 64, 64, 10]
    with pytest.raises(Refusal, match="write it before other recipes"):
        apply("width(2.0)", apply("activation('tanh')", untrained("digits-mlp")))
    with pytest.raises(Refusal, match="has no parameter 'depth'"):
        apply("depth(2.0)", untrained("mnist1d-cnn"))


def test_a_model_that_is_not_trained_has_no_recipe_to_change() -> None:
    bare = Subject(nn.Linear(2, 2), (torch.zeros(1, 2),))
    for technique in ("optimizer('sgd')", "l1(0.1)", "few-labels(0.1)", "pretrain('gan')"):
        with pytest.raises(Refusal, match="training"):
            apply(technique, bare)


# Few labels, pretraining, fine-tuning


def test_few_labels_keep_a_stratified_share_and_leave_the_rest_to_pretraining() -> None:
    made = apply("few-labels(0.1)", untrained("mnist1d-cnn"))
    assert made.data is not None
    assert made.data.spare is not None
    assert made.recipe is not None
    assert len(made.data.train) == 400
    assert len(made.data.spare) == 3600
    assert made.data.train.labels.bincount().tolist() == [40] * 10
    assert len(made.data.unlabelled) == 4000
    assert made.recipe.epochs == 150
    fewer = apply("few-labels(0.1, same_updates=False)", untrained("mnist1d-cnn"))
    assert fewer.recipe is not None
    assert fewer.recipe.epochs == 15


@pytest.mark.parametrize("share", [0.001, 0.005, 0.03, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("optimizer", ["adamw", "gd"])
def test_few_labels_are_trained_on_with_as_many_updates(share: float, optimizer: Optimizer) -> None:
    subject = untrained("mnist1d-cnn")
    assert subject.recipe is not None
    subject = replace(subject, recipe=replace(subject.recipe, optimizer=optimizer))
    made = apply(f"few-labels({share})", subject)
    updates = []
    for one in (subject, made):
        assert one.recipe is not None
        updates.append(one.recipe.epochs * updates_per_epoch(one))
    assert updates[1] == pytest.approx(updates[0], rel=0.04)


def test_no_share_of_numbers_is_one_label() -> None:
    subject, _ = line()
    made = apply("few-labels(0)", replace(subject, recipe=Recipe(epochs=2)))
    assert made.data is not None
    assert len(made.data.train) == 1


def test_labels_that_are_all_the_same_number_have_no_quality() -> None:
    subject, _ = line()
    assert subject.data is not None
    same = Split(subject.data.tune.inputs, torch.ones_like(subject.data.tune.labels))
    assert isnan(tune_quality(replace(subject, data=replace(subject.data, tune=same))))


@pytest.mark.parametrize("kind", ["register_hook", "register_post_accumulate_grad_hook"])
def test_a_model_with_a_hook_on_a_parameter_is_not_trained_without_it(kind: str) -> None:
    subject, _ = line()
    made = replace(subject, recipe=Recipe(epochs=1))
    getattr(next(made.module.parameters()), kind)(lambda _: None)
    with pytest.raises(Refusal, match="its parameter weight has a hook"):
        train(made)


@pytest.mark.parametrize("way", ["autoencoder", "gan", "supervised"])
def test_pretraining_changes_all_layers_but_the_last(way: str) -> None:
    subject = apply("few-labels(0.1)", untrained("mnist1d-cnn"))
    made = apply(f"pretrain({way!r}, epochs=1)", subject)
    layers = [(m, n) for m, n in zip(subject.module, made.module, strict=True)
              if hasattr(m, "weight")]  # fmt: skip
    same = [torch.equal(before.weight, after.weight) for before, after in layers]
    assert same == [False] * (len(layers) - 1) + [True]
    assert repr(made.module) == repr(subject.module)
    assert made.data is subject.data


@pytest.mark.parametrize(
    ("layers", "changed"),
    [
        ("'all'", [0, 1, 3, 4, 6, 7, 11, 13]),
        ("'head'", [13]),
        ("'first'", [0]),
        ("'last-2'", [11, 13]),
        ("'linear'", [11, 13]),
        ("'convolution'", [0, 3, 6]),
        ("'3'", [3]),
        ("['3', '13']", [3, 13]),
    ],
)
def test_only_the_layers_that_are_named_learn(layers: str, changed: list[int]) -> None:
    subject = untrained("mnist1d-cnn")
    made = train(apply(f"finetune({layers}, epochs=1)", subject))
    moved = [
        number
        for number, (before, after) in enumerate(zip(subject.module, made.module, strict=True))
        if any(
            not torch.equal(a, b)
            for a, b in zip(before.state_dict().values(), after.state_dict().values(), strict=True)
        )
    ]
    assert moved == changed


def test_a_layer_that_is_not_there_is_refused_with_the_nearest_name() -> None:
    subject = untrained("mnist1d-transformer")
    with pytest.raises(SpecError) as raised:
        registry.check_technique("finetune('blocks.0.qurey')", subject)
    assert "no layer 'blocks.0.qurey'. Did you mean 'blocks.0.query'?" in str(raised.value)


def test_pretraining_needs_a_linear_layer_at_the_end() -> None:
    data = untrained("digits-cnn").data
    assert data is not None
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Tanh())
    subject = Subject(module, (data.train.inputs[:4],), data, Recipe(epochs=1))
    with pytest.raises(Refusal, match="linear layer whose outputs are the model's"):
        apply("pretrain('autoencoder')", subject)


# Other tasks


def test_one_output_between_0_and_1_learns_two_classes(
    trained: Callable[[str], Subject],
) -> None:
    assert tune_accuracy(trained("dense-64-32-1")) > 0.9


def test_linear_regression_explains_what_least_squares_does(
    trained: Callable[[str], Subject],
) -> None:
    subject = trained("linear-regression")
    assert subject.data is not None
    inputs, labels = subject.data.train.inputs, subject.data.train.labels
    ones = torch.ones(len(inputs), 1)
    rest = labels - subject.module(inputs).detach().flatten()
    best = torch.linalg.lstsq(torch.cat([inputs, ones], 1), labels[:, None])
    least = labels - (torch.cat([inputs, ones], 1) @ best.solution).flatten()
    assert rest.square().sum() < 1.02 * least.square().sum()


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("examples", [1, 2, 22])
def test_a_batch_of_any_size_trains_on_as_many_updates_as_are_told(
    batch: int, examples: int
) -> None:
    """One example left in the end is none, as batch norm cannot train on it; a batch of one is."""
    subject, _ = line()
    assert subject.data is not None
    few = Split(subject.data.train.inputs[:examples], subject.data.train.labels[:examples])
    data = replace(subject.data, train=few)
    recipe = Recipe(epochs=3, batch_size=batch, optimizer="sgd", learning_rate=0.05)
    made = replace(subject, data=data, recipe=recipe)
    before = [weight.detach().clone() for weight in made.module.parameters()]
    updates = []
    fit(made.module, few.inputs, (few.labels,), task_loss, recipe,
        after_step=lambda: updates.append(1))  # fmt: skip
    assert len(updates) == 3 * updates_per_epoch(made)
    assert updates
    changed = zip(before, made.module.parameters(), strict=True)
    assert not any(torch.equal(old, new) for old, new in changed)


def test_a_batch_norm_that_is_to_train_on_single_examples_is_refused_with_what_would_work() -> None:
    subject, _ = line()
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    made = replace(subject, module=module, recipe=Recipe(epochs=1, batch_size=1))
    with pytest.raises(Refusal, match="train with a batch of 2 or more"):
        train(made)
    train(replace(made, recipe=Recipe(epochs=1, batch_size=3)))  # 200 leave 2


def test_without_examples_to_tune_on_training_goes_on_and_nothing_is_told_of_it() -> None:
    subject, _ = line()
    assert subject.data is not None
    none = Split(subject.data.tune.inputs[:0], subject.data.tune.labels[:0])
    made = replace(subject, data=replace(subject.data, tune=none),
                   recipe=Recipe(epochs=2, optimizer="sgd"))  # fmt: skip
    way: list[float] = []
    train(made, way)
    assert len(way) == 2 and all(map(isnan, way))
    classes = Split(none.inputs, none.labels.long())
    assert made.data is not None
    few = Split(made.data.train.inputs, torch.zeros(200, dtype=torch.long))
    with pytest.raises(Refusal, match="tune split has no labelled example"):
        tune_accuracy(replace(made, data=Dataset("none", few, classes, few, 2)))
