"""Training on captions: a prior and CLIP learn which caption says what, and resume to the same weights."""

import dataclasses
import json
import sys

import pytest
import torch
from caption_checkpoints import caption_table

from diffcern.cli import main
from diffcern.data import load_pairs
from diffcern.data.scenes import language
from diffcern.errors import DiffcernError, UsageError
from diffcern.predictors import load_predictor
from diffcern.priors import load_prior
from diffcern.run.match import contrastive_rows, load_contrastive, match_rows
from diffcern.train import loop
from diffcern.train.captions import load_captioned, read_captions
from diffcern.train.clip import ClipRecipe, contrastive_loss, train_clip
from diffcern.train.recipes import Regime
from diffcern.train.text_prior import TextPriorRecipe, train_text_prior

CPU = torch.device("cpu")
PRIOR = TextPriorRecipe(
    image_size=8, width=16, depth=1, heads=2, patch=4, text_width=16, text_depth=1, text_heads=2, caption_dropout=0.2
)
CLIP = ClipRecipe(
    image_size=8, width=16, depth=1, heads=2, patch=4, text_width=16, text_depth=1, text_heads=2, projection=8
)
COLOURS = {"a red square": (230, 20, 20), "a blue square, which is large": (20, 20, 230)}


@pytest.fixture
def path(tmp_path):
    return caption_table(tmp_path / "pairs.parquet", list(COLOURS.values()), list(COLOURS), group=["both", "both"])


@pytest.fixture
def data(path):
    return load_captioned(f"pairs:{path}")


def schedule(images=160, **options):
    return Regime(images=images, batch_size=16, learning_rate=5e-3, **options)


def test_pairs_have_their_own_captions(data, path):
    assert list(data.ids) == ["both/0", "both/1"]
    assert [data.captions(i) for i in range(2)] == [[caption] for caption in COLOURS]
    assert (data.image(1)[:, 0, 0] * 255).round().tolist() == [20, 20, 230]
    assert load_captioned(str(path)).ids == data.ids


def test_scenes_have_all_their_captions():
    data = load_captioned("embedded:scenes/validation")
    assert data.ids[0] == "scenes-validation-000000"
    assert data.captions(0) == language.captions(data.scenes.scene(0))
    assert torch.equal(data.image(2), data.scenes[2].image)
    with pytest.raises(UsageError, match="embedded:digits has no captions; embedded:scenes/train has"):
        load_captioned("embedded:digits")
    with pytest.raises(UsageError, match=r"Known: .*embedded:scenes"):
        load_captioned("nonsense")


class Shapes:
    """Four images with none to three captions, some of which they share."""

    name = "shapes"
    ids = ("a", "b", "c", "d")

    def image(self, index):
        return torch.full((3, 16, 16), index / 4)

    def captions(self, index):
        return [[], ["a cube", "a red cube"], ["a cube"], ["a cone", "a cube", "two things"]][index]


def test_a_step_picks_one_caption_of_each_image_at_random():
    table = read_captions(Shapes(), 8)
    assert len(table) == 3  # of the first nothing is said
    assert table.images[:, 0, 0, 0].tolist() == [64, 128, 191]
    assert table.texts == ("a cube", "a red cube", "a cone", "two things")
    index = torch.tensor([0, 1, 2]).repeat(300)
    drawn = table.draw(index, torch.Generator().manual_seed(0)).view(300, 3)
    assert set(drawn[:, 1].tolist()) == {0}
    assert {number: 60 < (drawn[:, 2] == number).sum() < 140 for number in (2, 0, 3)} == dict.fromkeys((2, 0, 3), True)
    assert table.describes(torch.tensor([0, 1]), torch.tensor([0, 1, 3])).tolist() == [
        [True, True, False],
        [True, False, False],
    ]
    decoded = table.tokenizer.decode(table.tokens[1], skip_special_tokens=True)
    assert decoded == "a red cube"


def test_the_tokens_follow_the_captions_of_the_data(data, tmp_path):
    _, _, outcome = train_text_prior(data, PRIOR, schedule(32), tmp_path / "a", device=CPU)
    assert outcome.finished
    other = caption_table(tmp_path / "other.parquet", list(COLOURS.values()), reversed(COLOURS), group=["x", "x"])
    renamed = load_captioned(str(other))
    renamed.pairs.name = data.name
    with pytest.raises(DiffcernError, match=r"other settings .*captions was"):
        train_text_prior(renamed, PRIOR, schedule(32), tmp_path / "a", device=CPU)


@pytest.mark.parametrize("what", ["prior", "clip"])
def test_a_stopped_run_resumes_to_the_same_weights(what, data, tmp_path, monkeypatch):
    def run(folder, **options):
        if what == "clip":
            return train_clip(data, CLIP, schedule(**options), tmp_path / folder, device=CPU)
        return train_text_prior(data, PRIOR, schedule(**options), tmp_path / folder, device=CPU)[1:]

    whole, outcome = run("a")
    assert outcome.finished
    count = iter(range(10_000))
    with monkeypatch.context() as patch:
        patch.setattr(loop.time, "monotonic", lambda: next(count) * 1.0)  # each look at the clock is a second
        _, stopped = run("b", minutes=0.1)
    assert 0 < stopped.step < 10
    again, outcome = run("b")
    assert outcome.finished
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert len({file.stat().st_mode for file in (tmp_path / "b").rglob("*.*")}) == 1  # weights are read by others too


def test_a_prior_learns_which_caption_is_which(data, path, tmp_path):
    trained, networks, _ = train_text_prior(data, PRIOR, schedule(2400, ema_decay=0.9), tmp_path / "p", device=CPU)
    assert not any(parameter.requires_grad for parameter in networks.parameters())
    assert (tmp_path / "p" / "samples.txt").read_text().splitlines() == list(COLOURS)
    assert (tmp_path / "p" / "samples.png").is_file()
    prior = load_prior(str(tmp_path / "p"))
    assert prior.clean_errors.shape == (101,)
    torch.testing.assert_close(prior.null.rows.tokens, trained.null.rows.tokens, rtol=0, atol=0.02)  # saved in fp16
    options = {"draws": 16, "strategy": "stratified", "weighting": "x0", "norm": "l2", "seed": 0}
    (row,) = match_rows(load_pairs(str(path)), prior, **options, todo=[0])
    assert row["group"]
    assert row["group_corrected"]


def test_clip_learns_which_caption_is_which(data, path, tmp_path):
    train_clip(data, CLIP, schedule(960, ema_decay=0.9), tmp_path / "clip", device=CPU)
    pairs = load_pairs(str(path))
    (row,) = contrastive_rows(pairs, load_contrastive(str(tmp_path / "clip"), pairs), todo=[0])
    assert row["group"]
    assert "group_corrected" not in row
    predictor = load_predictor(str(tmp_path / "clip"), labels=["red", "blue"], templates=["a {} square"])
    images = torch.stack([data.image(0), data.image(1)])
    assert predictor(images).argmax(1).tolist() == [0, 1]
    with pytest.raises(UsageError, match=r"'a photo of a red\.'.*'photo' \(nearest"):
        load_predictor(str(tmp_path / "clip"), labels=["red", "blue"])


def test_a_caption_that_is_true_of_another_image_is_no_wrong_answer():
    torch.manual_seed(0)
    logits = torch.randn(3, 3)
    true = torch.eye(3, dtype=torch.bool)
    true[0, 2] = True  # caption 2 is said of image 0 too
    images = [logits[0, 0] - logits[0, :2].logsumexp(0)] + [logits[i, i] - logits[i].logsumexp(0) for i in (1, 2)]
    texts = [logits[i, i] - logits[:, i].logsumexp(0) for i in (0, 1)] + [logits[2, 2] - logits[1:, 2].logsumexp(0)]
    torch.testing.assert_close(contrastive_loss(logits, true), -(sum(images) + sum(texts)) / 6)
    everything = contrastive_loss(logits, torch.ones(3, 3, dtype=torch.bool))
    assert everything == 0  # nothing is wrong


def test_the_commands_pass_on_every_option(path, tmp_path, monkeypatch, capsys):
    text = "--text-width 8 --text-depth 2 --text-heads 4 --image-size 8 --patch 2 --heads 3 --depth 1 --width 24"
    rest = f"--images 8 --batch-size 4 --device cpu --bf16 --out {tmp_path}"
    prior = "--objective flow --weighting eps --grey --caption-dropout 0.5 --augment light"
    for words in (f"text-prior {path} {text} {prior} {rest}/prior", f"clip {path} {text} --projection 6 {rest}/clip"):
        monkeypatch.setattr(sys, "argv", ["diffcern", "train", *words.split()])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        assert "finished: 0.0" in capsys.readouterr().out
    settings = json.loads(torch.load(tmp_path / "prior" / "checkpoint.pt")["settings"])
    shared = {"image_size": 8, "patch": 2, "width": 24, "depth": 1, "heads": 3}
    shared |= {"text_width": 8, "text_depth": 2, "text_heads": 4}
    own = {"objective": "flow", "weighting": "eps", "channels": 1, "caption_dropout": 0.5, "augmentation": "light"}
    assert settings.items() >= (shared | own).items()
    settings = json.loads(torch.load(tmp_path / "clip" / "checkpoint.pt")["settings"])
    assert settings.items() >= (shared | {"projection": 6}).items()
    assert load_prior(str(tmp_path / "prior")).kind == "flow"


def test_bad_recipes(data, tmp_path):
    with pytest.raises(UsageError, match="unknown objective 'y'"):
        train_text_prior(data, dataclasses.replace(PRIOR, objective="y"), schedule(), tmp_path / "out", device=CPU)
    mirrored = dataclasses.replace(PRIOR, augmentation="flip")
    with pytest.raises(UsageError, match="--augment light or none"):
        train_text_prior(data, mirrored, schedule(), tmp_path / "out", device=CPU)
    for recipe, run in ((PRIOR, train_text_prior), (CLIP, train_clip)):
        with pytest.raises(UsageError, match="multiple of its heads"):
            run(data, dataclasses.replace(recipe, text_width=15), schedule(), tmp_path / "out", device=CPU)
