"""One class under all the names that people and libraries have for it; what is unclear is refused with what is near."""

from __future__ import annotations

import json

import pytest
import torch
from timm.data import ImageNetInfo
from torch import nn
from torchvision.models import ResNet18_Weights

from diffcern.errors import DiffcernError, UsageError
from diffcern.given import parse_labels
from diffcern.label_files import read_labels
from diffcern.labels import imagenet_labels, readable, vocabulary_of
from diffcern.predictors import Predictor
from diffcern.spellings import Spellings
from diffcern.tasks.base import name_map

NAMES, IDS = imagenet_labels()
TIMM = ImageNetInfo().label_descriptions()


@pytest.fixture(scope="module")
def imagenet() -> Spellings:
    return Spellings(NAMES, IDS)


@pytest.mark.parametrize(
    ("spelling", "index"),
    [
        ("tench", 0),
        ("Tench", 0),
        ("TENCH", 0),
        ("tench, Tinca tinca", 0),
        ("Tinca tinca", 0),
        ("n01440764", 0),
        ("white shark", 2),
        ("great_white_shark", 2),
        ("White  Shark", 2),
        ("Egyptian_cat", 285),
        ("egyptian cat", 285),
        ("n02012849", 134),
        ("crane (n02012849)", 134),
        ("crane bird", 134),
        ("n03126707", 517),
        ("maillot", 638),
        ("maillot, tank suit", 639),
        ("tank suit", 639),
        ("maillot tank suit", 639),
    ],
)
def test_every_spelling_finds_its_class(imagenet, spelling, index):
    assert imagenet.indices([spelling]) == [index]
    assert Spellings(NAMES).indices([spelling]) == [index]  # ids are known from the names


def test_whole_lists_find_themselves(imagenet):
    assert imagenet.indices(NAMES) == imagenet.indices(IDS) == list(range(1000))
    for listed in (TIMM, ResNet18_Weights.IMAGENET1K_V1.meta["categories"], [name.upper() for name in TIMM]):
        assert imagenet.indices(readable(listed)) == list(range(1000))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["tench", "crane"], r"'crane' may be 'crane \(n02012849\)' or 'crane \(n03126707\)': .*its WordNet id"),
        (["tench", "tenchy"], "asked for classes: tenchy; the predictor knows 1000: .*; nearest to 'tenchy': tench"),
        (["whte shark"], "nearest to 'whte shark': great white shark"),
        (["tench", "Tinca tinca"], r"twice: 'tench' and 'Tinca tinca' are both 'tench'\. Labels that hold commas"),
        (["n99999999"], "asked for classes: n99999999"),
    ],
)
def test_what_is_unclear_is_refused(imagenet, labels, message):
    with pytest.raises(UsageError, match=message):
        imagenet.indices(labels)


def test_other_label_spaces_are_spelled_freely_too():
    own = Spellings(["Cat, house cat", "dog", "great_dane", "Dog house"])
    assert own.indices(["house cat", "DOG", "Great Dane", "dog house"]) == [0, 1, 2, 3]
    assert Spellings(["cat", "Cat"]).indices(["Cat", "cat"]) == [1, 0]
    with pytest.raises(UsageError, match="'CAT' may be 'cat' or 'Cat'"):
        Spellings(["cat", "Cat"]).indices(["CAT"])


def test_a_predictor_is_restricted_by_any_spelling_and_keeps_it():
    logits = torch.randn(2, 1000)
    predictor = Predictor(Fixed(logits), NAMES, class_ids=IDS)
    images = torch.rand(2, 3, 8, 8)
    names = ["White shark", "n02012849", "tench, Tinca tinca"]
    assert torch.equal(predictor.restrict(names)(images), logits[:, [2, 134, 0]])
    assert predictor.class_names == tuple(names)
    assert predictor.class_ids == ("n01484850", "n02012849", "n01440764")
    assert torch.equal(predictor.restrict(["tench", "white shark"])(images), logits[:, [0, 2]])


def test_predictor_and_prior_meet_in_their_own_spellings():
    mapping = name_map(["Tench", "n02012849", "white shark"], NAMES)
    assert mapping.argmax(1).tolist() == [0, 134, 2]
    assert name_map(["tench", "goldfish"], ["goldfish, Carassius auratus", "tench, Tinca tinca"]).argmax(
        1
    ).tolist() == [
        1,
        0,
    ]
    with pytest.raises(DiffcernError, match="the prior lacks tenchy; nearest to 'tenchy': tench"):
        name_map(["tenchy"], NAMES)
    with pytest.raises(DiffcernError, match="'crane' may be"):
        name_map(["crane"], NAMES)


class Fixed(nn.Module):
    def __init__(self, logits) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images):
        return self.logits


@pytest.mark.parametrize("background", ["background", "__background__", "Background"])
def test_a_head_with_a_background_class_meets_the_others(background, tmp_path):
    """As TensorFlow's models have it, in transformers' format."""
    import transformers
    from predictors.checkpoints import TOWER, save

    from diffcern.predictors import load_predictor

    names = dict(enumerate([background, *TIMM]))
    model = save(
        tmp_path,
        transformers.ViTForImageClassification(transformers.ViTConfig(**TOWER, id2label=names)),
        transformers.ViTImageProcessor(size={"height": 32, "width": 32}),
    )
    predictor, images = load_predictor(str(tmp_path)), torch.rand(2, 3, 32, 32)
    assert (predictor.class_names, predictor.class_ids) == (NAMES, IDS)
    torch.testing.assert_close(predictor(images), model(predictor.prepare(images)).logits[:, 1:])
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 1001))
    with pytest.raises(UsageError, match=r"1001 outputs and the predictor 1000 class names: .* a background class too"):
        Predictor(network, NAMES, size=8)(images)


def test_labels_for_text_are_words():
    """timm's list names the crane twice; ids become names, and what tells names apart stays out of a sentence."""
    vocabulary = vocabulary_of(TIMM, None)
    assert vocabulary.labels == NAMES
    assert vocabulary.prompts[134] == vocabulary.prompts[517] == "a photo of a crane."
    assert vocabulary_of(["n01440764", "cat"], None).prompts == ["a photo of a tench.", "a photo of a cat."]
    with pytest.raises(UsageError, match=r"given twice: crane. A WordNet id tells .* n02012849"):
        vocabulary_of(["crane", "crane"], None)


@pytest.mark.parametrize(
    ("name", "text", "labels"),
    [
        ("a.txt", "cat\ndog\n", ["cat", "dog"]),
        ("a.txt", "\ufeffcat\r\n\r\n  dog  \r\n# a note\r\n", ["cat", "dog"]),
        (
            "a.txt",
            "tench, Tinca tinca\ngoldfish, Carassius auratus\n",
            ["tench, Tinca tinca", "goldfish, Carassius auratus"],
        ),
        ("a", "n01440764 tench, Tinca tinca\nn01443537 goldfish\n", ["n01440764", "n01443537"]),
        ("a.txt", "0: cat\n1: dog\n2: fish", ["cat", "dog", "fish"]),
        ("a.names", "1 cat\n2 dog\n", ["cat", "dog"]),
        ("a.txt", "0\n1\n2\n", ["0", "1", "2"]),
        ("a.txt", "3 wheels\n4 wheels\n", ["3 wheels", "4 wheels"]),
        ("a.txt", "{0: 'tench, Tinca tinca',\n 1: 'goldfish'}", ["tench, Tinca tinca", "goldfish"]),
        ("a.json", '["cat", "dog"]', ["cat", "dog"]),
        ("a.json", '{"1": "dog", "0": "cat"}', ["cat", "dog"]),
        ("a.json", '{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}', ["n01440764", "n01443537"]),
        ("a.json", '{"model_type": "vit", "id2label": {"0": "cat", "1": "dog"}}', ["cat", "dog"]),
        ("a.csv", "label\ncat\ndog\n", ["cat", "dog"]),
        (
            "a.csv",
            "\ufeffprompt,label\na cat,cat\na kitten,cat\na dog,dog\n",
            {"cat": ["a cat", "a kitten"], "dog": ["a dog"]},
        ),
        ("a.tsv", "ID\tName\n1\tcat\n2\tdog\n", ["cat", "dog"]),
    ],
)
def test_label_files_of_any_origin(tmp_path, name, text, labels):
    (tmp_path / name).write_bytes(text.encode())
    assert parse_labels(str(tmp_path / name)) == labels


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "Stör\nBär\n".encode("latin-1"), "not UTF-8 text .*save it as UTF-8"),
        ("a.txt", b"\n\n", "holds no labels"),
        ("a.csv", b"prompt,label\na cat,cat\na dog\n", "line 3: 1 cells where the header has 2"),
        ("a.csv", b"prompt,label\n,cat\n", "line 2: prompt is empty"),
        (
            "a.csv",
            b"text,number\na,1\n",
            "has no column label or .*; it has text, number. .* the columns prompt and label",
        ),
        ("a.json", b"{", "not JSON"),
        ("a.json", b'{"cat": 0, "dog": 1}', "an object from numbers to names"),
        ("a.json", b'{"0": "cat", "2": "dog"}', "without gaps"),
        ("a.json", b"[1, 2]", "holds 1 in the place of a name"),
        ("a.json", b"3", "must be a list of names"),
        ("a.txt", b"{0: tench}", "begins like a dictionary"),
        ("a.txt", b"- a\n- b\n", "is a list of YAML, not a list of labels"),
        ("a.txt", b'"cat",\n"dog"\n', "is of quoted lines"),
        ("a.txt", b"cat\t0\ndog\t1\n", "is a table of columns"),
        ("a.txt", b"1: cat\n3: dog\n", "numbered with gaps or out of order"),
        ("a.names", b"<label>cat</label>\n<label>dog</label>\n", "is XML"),
        ("a.yaml", b"[a,", "is not YAML"),
        ("a.yaml", b"nc: 2\n", "a list of names, or an object"),
    ],
)
def test_label_files_that_are_none(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_labels(tmp_path / name)


def test_labels_on_the_command_line(tmp_path):
    assert parse_labels("cat, dog") == ["cat", "dog"]
    many = [f"label {k}" for k in range(400)]
    assert parse_labels(",".join(many)) == many  # too long to be a path
    with pytest.raises(UsageError, match="there is no file"):
        parse_labels("missing.json")
    (tmp_path / "timm.json").write_text(json.dumps(TIMM))
    assert readable(parse_labels(str(tmp_path / "timm.json"))) == list(NAMES)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data.yaml", "nc: 3\nnames: ['person', 'bicycle', 'no']\n"),
        ("coco.yml", "names:\n  0: person\n  1: bicycle\n  2: no\n"),
        ("list.yaml", "- person\n- bicycle\n- no\n"),
        ("dots.txt", "1. person\n2. bicycle\n3. no\n"),
        ("dashes.txt", "0 - person\n1 - bicycle\n2 - no\n"),
    ],
)
def test_lists_of_other_tools(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert read_labels(tmp_path / name) == ["person", "bicycle", "no"]
