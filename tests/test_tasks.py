import pytest
import torch

from diffcern.errors import DiffcernError
from diffcern.tasks import Classification


def test_classes_meet_by_name_in_any_order():
    task = Classification(("cat", "dog"), ("bird", "dog", "cat"))
    logits = torch.tensor([[2.0, 0.0]])
    c = task.condition(logits).classes
    assert torch.allclose(c, torch.tensor([[0.0, 0.1192, 0.8808]]), atol=1e-4)
    assert task.hypotheses(torch.device("cpu")).classes.tolist() == [[0, 0, 1], [0, 1, 0]]


def test_permuting_both_sides_changes_nothing():
    names, known = ("a", "b", "c"), ("c", "a", "b")
    logits = torch.tensor([[3.0, 1.0, 2.0]])
    order = [2, 0, 1]
    permuted = Classification([names[i] for i in order], known).condition(logits[:, order]).classes
    assert torch.allclose(permuted, Classification(names, known).condition(logits).classes)


def test_top_k_renormalises_and_leaves_exact_zeros():
    task = Classification(("a", "b", "c"), ("a", "b", "c"))
    c = task.condition(torch.tensor([[2.0, 1.0, 5.0]]), keep=torch.tensor([[2, 0]])).classes
    assert c[0, 1] == 0
    assert torch.allclose(c.sum(), torch.tensor(1.0))
    assert torch.allclose(c[0, 2] / c[0, 0], torch.tensor(3.0).exp())


@pytest.mark.parametrize("known", [("a", "b"), ("a", "b", "x"), ("a", "b", "c", "c")])
def test_a_mismatch_names_both_sides(known):
    with pytest.raises(DiffcernError, match=r"3 labels \(a, b, c\).*prior's \d"):
        Classification(("a", "b", "c"), known)
