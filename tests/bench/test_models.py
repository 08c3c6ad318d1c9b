"""Models: what they take, and how they are trained."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench import Recipe, Refusal, SpecError, Subject, registry
from bench.data import Dataset
from bench.subject import as_subject
from bench.techniques.distillation import scores
from bench.training import finetune, fit, train

registry.load_built_ins()

MODELS = registry.names("model")
OTHER_OUTPUTS = {"dense-64-32-1": "tumours", "linear-regression": "diabetes"}
"""Models that give one number, not a score for each class, and their data."""
CLASSIFIERS = [name for name in MODELS if name not in OTHER_OUTPUTS]
ANY_SHAPE = ("digits-dense-16", "digits-mlp", "linear-classifier", "mlp-100", "mnist1d-mlp")
FITTING = {
    "cnn-64-128": [(1, 8, 8), (3, 12, 9)],
    "digits-dense-16": [(7,), (2, 5)],
    "linear-classifier": [(7,), (2, 5)],
    "mlp-100": [(7,), (1, 28, 28)],
    "digits-cnn": [(1, 8, 8), (3, 12, 9)],
    "digits-mlp": [(7,), (2, 5), (2, 3, 5)],
    "mnist1d-cnn": [(1, 20), (3, 33)],
    "mnist1d-cnn-wide": [(1, 20), (3, 33)],
    "mnist1d-mlp": [(7,), (2, 5), (2, 3, 5)],
    "mnist1d-transformer": [(1, 40), (3, 12), (2, 4)],
}
NOT_FITTING = {
    "cnn-64-128": [(64,), (1, 8, 7)],
    "digits-cnn": [(64,), (1, 40), (1, 8, 7), (1, 7, 8)],
    "mnist1d-cnn": [(40,), (1, 19), (1, 40, 40)],
    "mnist1d-cnn-wide": [(40,), (1, 19), (1, 40, 40)],
    "mnist1d-transformer": [(40,), (1, 41), (1, 40, 40)],
}


def cases(shapes: dict[str, list[tuple[int, ...]]]) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, shape) for name in shapes for shape in shapes[name]]


def build(text: str, *data: Dataset, seed: int = 0) -> Subject:
    torch.manual_seed(seed)
    return as_subject(registry.build("model", text, *data), text)


def weights(subject: Subject) -> list[Tensor]:
    return list(subject.module.state_dict().values())


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(map(torch.equal, one, other))


def trained_for(subject: Subject, epochs: int, seed: int) -> Subject:
    assert subject.recipe is not None
    torch.manual_seed(seed)
    return train(
        dataclasses.replace(subject, recipe=dataclasses.replace(subject.recipe, epochs=epochs))
    )


def accuracy(subject: Subject) -> float:
    assert subject.data is not None
    test = subject.data.test
    found = scores(subject.module, test.inputs).argmax(1)
    return (found == test.labels).double().mean().item()


def test_every_model_says_which_data_it_takes() -> None:
    assert sorted(FITTING) == CLASSIFIERS
    assert sorted([*NOT_FITTING, *ANY_SHAPE]) == CLASSIFIERS


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_model_gives_scores_of_the_classes_of_its_own_data(name: str) -> None:
    subject = build(name)
    assert subject.data is not None
    (own,) = [p.default for p in registry.find("model", name)[0].parameters if p.name == "data"]
    assert subject.data.name == own
    assert subject.inputs[0].shape == (64, *subject.data.shape)
    outputs = subject.module.eval()(*subject.inputs)
    assert outputs.shape == (64, 10)
    assert outputs.isfinite().all()
    assert subject.recipe is not None
    assert subject.notes == ()


@pytest.mark.parametrize(("name", "shape"), cases(FITTING))
@pytest.mark.parametrize("classes", [2, 5])
def test_a_model_takes_a_users_data_of_fitting_shape(
    make_data: Callable[..., Dataset], name: str, shape: tuple[int, ...], classes: int
) -> None:
    data = make_data(*shape, classes=classes)
    subject = build(name, data)
    assert subject.data is data
    assert subject.module.eval()(*subject.inputs).shape == (40, classes)
    assert all(value.isfinite().all() for value in weights(trained_for(subject, 2, seed=0)))


@pytest.mark.parametrize(("name", "shape"), cases(NOT_FITTING))
def test_a_model_refuses_data_that_do_not_fit(
    make_data: Callable[..., Dataset], name: str, shape: tuple[int, ...]
) -> None:
    with pytest.raises(Refusal) as caught:
        build(name, make_data(*shape))
    assert str(caught.value).startswith(f"{name} needs ")
    assert f"a user's data has the shape {shape}." in str(caught.value)


@pytest.mark.parametrize("text", ["digits-cnn('mnist1d')", "mnist1d-cnn(data='digits')"])
def test_a_model_refuses_data_that_are_named(text: str) -> None:
    with pytest.raises(Refusal, match="has the shape"):
        build(text)


def test_a_model_is_built_on_data_that_are_named() -> None:
    subject = build("digits-mlp('mnist1d', width=8)")
    assert subject.data is not None
    assert subject.data.name == "mnist1d"
    assert [layer.out_features for layer in subject.module if isinstance(layer, nn.Linear)] == [
        8, 8, 10,
    ]  # fmt: skip


def test_a_number_in_the_place_of_data_is_refused() -> None:
    with pytest.raises(SpecError, match="named by text in quotes"):
        build("digits-mlp(64)")


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_wider_model_has_more_weights(name: str, make_data: Callable[..., Dataset]) -> None:
    entry = registry.find("model", name)[0]
    if "width" not in {parameter.name for parameter in entry.parameters}:
        pytest.skip(f"{name} has its width from the literature")
    factory = entry.factory
    data = make_data(*FITTING[name][0])
    sizes = [sum(map(Tensor.numel, weights(factory(data, width=width)))) for width in (8, 16)]
    assert sizes[0] < sizes[1]


def test_a_transformer_refuses_heads_that_do_not_divide_its_width() -> None:
    with pytest.raises(Refusal, match="width 64 is not divisible by heads 5"):
        build("mnist1d-transformer(heads=5)")


def test_a_width_of_nothing_is_refused() -> None:
    with pytest.raises(SpecError, match="width must be 1 or more, got 0"):
        build("mnist1d-cnn(width=0)")


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_training_is_the_same_under_the_same_seed(
    name: str, make_data: Callable[..., Dataset]
) -> None:
    data = make_data(*FITTING[name][0], count=250)

    def made(weights_seed: int, order_seed: int) -> list[Tensor]:
        return weights(trained_for(build(name, data, seed=weights_seed), 2, order_seed))

    first = made(1, 1)
    assert same(first, made(1, 1))
    assert not same(first, made(2, 1))
    assert not same(first, made(1, 2))


def test_training_leaves_the_untrained_model_as_it_was(make_data: Callable[..., Dataset]) -> None:
    subject = build("mnist1d-cnn", make_data(1, 20))
    before = [value.clone() for value in weights(subject)]
    after = trained_for(subject, 1, seed=0)
    assert same(weights(subject), before)
    assert not same(weights(after), before)
    assert not any(module.training for module in after.module.modules())


@pytest.mark.parametrize("epochs", range(9))
def test_a_model_can_be_trained_for_any_number_of_steps(
    epochs: int, make_data: Callable[..., Dataset]
) -> None:
    made = trained_for(build("mnist1d-mlp", make_data(4)), epochs, seed=0)
    assert all(value.isfinite().all() for value in weights(made))


def test_a_last_batch_of_one_example_does_not_stop_batch_norm(
    make_data: Callable[..., Dataset],
) -> None:
    made = trained_for(build("mnist1d-cnn", make_data(1, 20, count=101)), 1, seed=0)
    assert all(value.isfinite().all() for value in weights(made))


def test_a_model_without_data_or_recipe_is_used_as_it_is(
    make_data: Callable[..., Dataset],
) -> None:
    subject = build("digits-mlp", make_data(4))
    for without in ({"data": None}, {"recipe": None}):
        bare = dataclasses.replace(subject, **without)
        assert train(bare) is bare
        noted = finetune(bare, epochs=2)
        assert noted.module is bare.module
        lacks = "training data" if bare.data is None else "recipe to train by"
        assert noted.notes == (f"not fine-tuned: the model has no {lacks}",)
        assert finetune(bare, epochs=0) is bare


def test_a_model_with_nothing_to_train_is_refused() -> None:
    with pytest.raises(Refusal, match="no trainable parameters"):
        fit(nn.ReLU(), torch.zeros(4, 2), (), nn.functional.mse_loss, Recipe(epochs=1))


def test_a_constraint_is_called_after_every_step(make_data: Callable[..., Dataset]) -> None:
    subject = build("digits-mlp", make_data(4, count=250))
    first = next(subject.module.parameters())
    calls = []

    def zero() -> None:
        calls.append(first.detach().abs().max().item())
        first.data.zero_()

    finetune(subject, epochs=2, after_step=zero)
    assert len(calls) == 2 * 3
    assert max(calls) > 0
    assert first.abs().max() == 0


def test_a_module_with_example_inputs_is_a_subject() -> None:
    module, inputs = nn.Linear(4, 2), torch.zeros(3, 4)
    for made in ((module, inputs), (module, (inputs,)), [module, [inputs]]):
        subject = as_subject(made, "mine")
        assert subject.module is module
        assert subject.inputs == (inputs,)
        assert subject.data is None
    assert as_subject(subject, "mine") is subject
    bare = Subject(module, inputs)  # as people write it
    assert as_subject(bare, "mine").inputs == (inputs,)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (None, "returned NoneType. It must return a torch.nn.Module and example inputs"),
        (nn.Linear(4, 2), "returned Linear. It must return"),
        ((nn.Linear(4, 2),), "returned tuple. It must return"),
        (("net", torch.zeros(1)), "returned str as its module"),
        ((nn.Linear(4, 2), "x"), "returned str as its inputs"),
        ((nn.Linear(4, 2), ()), "returned tuple as its inputs"),
        ((nn.Linear(4, 2), {"x": torch.zeros(1, 4), "mask": None}), "forward(self, x, mask)"),
        ((nn.Linear(4, 2), [1.0]), "every example input must be a tensor, and input 1 is float"),
        ((nn.Linear(4, 2), torch.tensor(1.0)), "the first dimension of each must be the same"),
        (
            (nn.Linear(4, 2), (torch.zeros(3, 4), torch.zeros(2, 4))),
            "example inputs have the shapes [(3, 4), (2, 4)]",
        ),
        ((nn.Linear(4, 2), torch.zeros(0, 4)), "its example inputs have no row"),
        (Subject(nn.Linear(4, 2), ()), "returned tuple as its inputs"),
        (Subject(nn.Linear(4, 2), (torch.zeros(0, 4),)), "its example inputs have no row"),
    ],
)
def test_what_is_no_model_is_explained(made: Any, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        as_subject(made, "mine")
    assert str(caught.value).startswith("Model 'mine'")
    assert message in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("mnist1d-cnn", 0.92, 1.0),
        ("mnist1d-mlp", 0.60, 0.75),
        ("digits-cnn", 0.96, 1.0),
        ("digits-mlp", 0.94, 1.0),
    ],
)
def test_trained_models_are_as_accurate_as_published(
    trained: Callable[[str], Subject], name: str, low: float, high: float
) -> None:
    assert low <= accuracy(trained(name)) <= high


# The models of the literature


@pytest.mark.parametrize(
    ("name", "shape", "classes", "parameters"),
    [
        ("mlp-100", (1, 28, 28), 10, 784 * 100 + 100 + 100 * 10 + 10),
        ("linear-classifier", (1, 28, 28), 10, 784 * 10 + 10),
        ("digits-dense-16", (64,), 10, 1210),
        ("dense-64-32-1", (30,), 2, 30 * 64 + 64 + 64 * 32 + 32 + 32 + 1),
        ("cnn-64-128", (1, 28, 28), 10,
         64 * 10 + 128 * (64 * 9 + 1) + 1024 * (128 * 49 + 1) + 10 * 1025),
    ],
)  # fmt: skip
def test_a_model_of_the_literature_has_its_number_of_parameters(
    make_data: Callable[..., Dataset], name: str, shape: tuple[int, ...], classes: int,
    parameters: int,
) -> None:  # fmt: skip
    module = build(name, make_data(*shape, classes=classes)).module
    assert sum(parameter.numel() for parameter in module.parameters()) == parameters


@pytest.mark.parametrize(("name", "data"), OTHER_OUTPUTS.items())
def test_a_model_with_one_output_says_which_data_it_takes(
    name: str, data: str, make_data: Callable[..., Dataset]
) -> None:
    subject = build(name)
    assert subject.data is not None
    assert subject.data.name == data
    outputs = subject.module(*subject.inputs)
    assert outputs.shape == (64, 1)
    if data == "tumours":
        assert ((outputs > 0) & (outputs < 1)).all()
    with pytest.raises(Refusal, match=f"{name} needs "):
        build(name, make_data(4, classes=3))


def test_standardised_digits_have_mean_0_and_deviation_1() -> None:
    data = build("digits-dense-16").data
    assert data is not None
    inputs = data.train.inputs
    moving = inputs.std(0) > 0
    assert torch.allclose(inputs.mean(0), torch.zeros(64), atol=1e-5)
    assert torch.allclose(inputs[:, moving].std(0, correction=0), torch.ones(1), atol=1e-5)
