import pytest
from torchvision.models import ResNet18_Weights

from diffcern.labels import imagenet_labels, label_space


def test_imagenet_names_are_readable_and_all_different():
    names, ids = imagenet_labels()
    assert len(set(names)) == len(set(ids)) == 1000
    assert (names[0], ids[0]) == ("tench", "n01440764")
    assert (names[134], names[517]) == ("crane (n02012849)", "crane (n03126707)")  # the bird, the machine
    assert (names[638], names[639]) == ("maillot", "maillot, tank suit")


@pytest.mark.parametrize("subset", ["imagenet-12k", "imagenet-21k-goog", "imagenet-22k"])
def test_larger_label_spaces_are_all_different_too(subset):
    names, ids = imagenet_labels(subset)
    assert len(set(names)) == len(set(ids)) == len(names)


def test_every_spelling_of_imagenets_list_is_the_same_label_space():
    from timm.data import ImageNetInfo

    synonyms = ImageNetInfo().label_descriptions()
    assert synonyms.count("crane") == 2
    for spelling in (ResNet18_Weights.IMAGENET1K_V1.meta["categories"], synonyms, [s.lower() for s in synonyms]):
        assert label_space(spelling) == imagenet_labels()


def test_wordnet_ids_become_names():
    assert label_space(["n01443537", "n01440764"]) == (("goldfish", "tench"), ("n01443537", "n01440764"))
    assert label_space(["n01443537", "n99999999"]).names == ("n01443537", "n99999999")


def test_another_list_stays_as_it_is_except_for_doubles():
    assert label_space(["wall", "crane", "tree", "crane"]) == (("wall", "crane (1)", "tree", "crane (3)"), None)
    shuffled = imagenet_labels().names[::-1]
    assert label_space(shuffled) == (shuffled, None)
