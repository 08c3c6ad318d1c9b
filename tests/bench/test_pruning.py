"""Unstructured pruning: what each score keeps, how many, and in how many steps."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from bench import Refusal, SpecError, Subject, registry
from bench.data import Dataset, Split
from bench.storage import find_layers
from bench.subject import Recipe
from bench.training import train

WAYS = ("prune-magnitude", "prune-random", "prune-gradient", "prune-l0")
COUNT = 600


def apply(technique: str, subject: Subject, seed: int = 0) -> Subject:
    torch.manual_seed(seed)
    made: Subject = registry.build("technique", technique, subject)
    return made


def weights(subject: Subject) -> Tensor:
    return torch.cat([layer.weight.detach().flatten() for layer in find_layers(subject.module)])


def one_feature_counts() -> Subject:
    """A linear classifier of eight features, of which only the first tells the class."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(COUNT, 8, generator=generator)
    inputs[:, 7] = 0  # never seen: no gradient reaches its weights
    split = Split(inputs, (inputs[:, 0] > 0).long())
    data = Dataset("signs", split, split, split, 2)
    torch.manual_seed(0)
    subject = Subject(nn.Sequential(nn.Linear(8, 2)), (inputs[:4],), data, Recipe(epochs=40))
    return train(subject)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.937])
def test_exactly_the_share_asked_for_is_zero(
    trained: Callable[[str], Subject], way: str, sparsity: float
) -> None:
    subject = trained("digits-mlp")
    gates = ", gate_epochs=1" if way == "prune-l0" else ""
    found = weights(apply(f"{way}({sparsity}{gates})", subject))
    assert int((found == 0).sum()) == round(sparsity * len(found))


@pytest.mark.parametrize("way", WAYS[:3])
def test_what_is_not_pruned_stays_as_it_was(trained: Callable[[str], Subject], way: str) -> None:
    subject = trained("digits-mlp")
    before, after = weights(subject), weights(apply(f"{way}(0.7)", subject))
    assert torch.equal(after[after != 0], before[after != 0])


def test_weights_that_no_example_uses_go_first_by_gradient_however_large() -> None:
    subject = one_feature_counts()
    with torch.no_grad():
        subject.module[0].weight[:, 7] = 100.0
    by_gradient = apply("prune-gradient(0.125)", subject).module[0].weight
    by_size = apply("prune-magnitude(0.125)", subject).module[0].weight
    assert (by_gradient[:, 7] == 0).all()
    assert (by_size[:, 7] == 100).all()


def test_of_all_gates_one_of_the_only_feature_that_counts_stays_open() -> None:
    weight = apply("prune-l0(0.9375, gate_epochs=40)", one_feature_counts()).module[0].weight
    assert (weight != 0).any(0).tolist() == [True, *[False] * 7]


@pytest.mark.parametrize("way", ["prune-magnitude", "prune-gradient"])
def test_the_only_feature_that_counts_is_the_last_to_go(way: str) -> None:
    weight = apply(f"{way}(0.875)", one_feature_counts()).module[0].weight
    assert (weight[:, 0] != 0).all()
    assert (weight[:, 1:] == 0).all()


def test_lots_are_drawn_anew_with_every_seed() -> None:
    subject = one_feature_counts()
    first, again, other = (weights(apply("prune-random(0.5)", subject, s)) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first == 0, other == 0)


def test_gates_that_learned_beat_lots(trained: Callable[[str], Subject]) -> None:
    from bench.training import tune_accuracy

    subject = trained("digits-mlp")
    by_gates = tune_accuracy(apply("prune-l0(0.9)", subject))
    by_lot = tune_accuracy(apply("prune-random(0.9)", subject))
    assert by_gates > by_lot + 0.2


def test_steps_share_the_epochs_and_grow_by_the_cubic_law(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bench.techniques import pruning

    seen: list[tuple[int, float]] = []

    def note(subject: Subject, epochs: int) -> Subject:
        mask = torch.cat([layer.weight_mask.flatten() for layer in subject.module])
        seen.append((epochs, float((mask == 0).double().mean())))
        return subject

    monkeypatch.setattr(pruning, "finetune", note)
    subject = Subject(nn.Sequential(nn.Linear(100, 100)), (torch.zeros(1, 100),))
    apply("prune-magnitude(0.8, finetune_epochs=7, steps=3)", subject)
    assert [epochs for epochs, _ in seen] == [2, 2, 3]
    assert [share for _, share in seen] == pytest.approx(
        [0.8 * (1 - (2 / 3) ** 3), 0.8 * (1 - (1 / 3) ** 3), 0.8], abs=1e-4
    )


def test_zeros_of_earlier_steps_stay_zero(trained: Callable[[str], Subject]) -> None:
    subject = trained("digits-mlp")
    made = apply("prune-gradient(0.9, finetune_epochs=3, steps=3)", subject)
    found = weights(made)
    assert int((found == 0).sum()) == round(0.9 * len(found))
    assert not any(prune.is_pruned(layer) for layer in made.module.modules())


def test_more_steps_than_epochs_are_refused_before_anything_is_trained() -> None:
    with pytest.raises(SpecError, match=r"steps=4 needs finetune_epochs=4 or more"):
        registry.check_technique("prune-magnitude(0.5, steps=4)", one_feature_counts())


def test_gradients_and_gates_need_data() -> None:
    bare = Subject(nn.Linear(4, 2), (torch.zeros(1, 4),))
    for way in ("prune-gradient(0.5)", "prune-l0(0.5)"):
        with pytest.raises(Refusal, match="needs training data"):
            apply(way, bare)
