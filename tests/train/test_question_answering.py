"""Training to answer: what is asked in a step, what the loss is, and that a run resumes and learns."""

import dataclasses
import io
import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image
from question_checkpoints import COLOUR, COLOURS, RECIPE, SIDE, SIDES, picture, question_table, tiny
from safetensors.torch import load_file, save_file

from diffcern.assets import asset
from diffcern.data import load_questions
from diffcern.data.scenes import scenes
from diffcern.data.scenes.asking import QUESTION_KINDS
from diffcern.errors import DiffcernError, UsageError
from diffcern.predictors.question_answering import load_answerer
from diffcern.train import loop
from diffcern.train.asked import load_asked, read_asked
from diffcern.train.question_answering import answer_loss, new_answerer, train_answerer
from diffcern.train.recipes import Regime

CPU = torch.device("cpu")


@pytest.fixture
def data(tmp_path):
    return load_questions(question_table(tmp_path / "q.parquet"))


@pytest.fixture
def few(monkeypatch):
    """Three scenes in the place of a split."""
    monkeypatch.setattr(type(scenes("train")), "__len__", lambda self: 3)
    return load_asked("embedded:scenes/train")


def schedule(images=64, **options):
    return Regime(images=images, batch_size=8, learning_rate=5e-3, **options)


def test_everything_is_asked_about_every_scene(few):
    assert {entry.image[1] for entry in few.asked} == {0, 1, 2}
    assert {entry.kind for entry in few.asked} <= set(QUESTION_KINDS)
    asked_of_one = [(e.question, e.answer) for e in few.asked if e.image[1] == 0]
    assert len(set(asked_of_one)) == len(asked_of_one) > 3
    assert all(entry.answer in entry.choices for entry in few.asked)
    with pytest.raises(UsageError, match="embedded:digits has no questions; embedded:scenes/train has"):
        load_asked("embedded:digits")


def test_a_table_reads_each_image_once(few):
    answerer = asked_by(few)
    table = read_asked(answerer, few, 16)
    assert len(table) == 3
    assert table.prefix.tolist() == [answerer.tokenizer.bos_token_id] + [answerer.processor.image_token_id] * 4
    for row in range(3):
        own = [(e.question, e.answer) for e in few.asked if e.image[1] == row]
        numbers = table.asked[row][table.asked[row] >= 0]
        said = [answerer.tokenizer.decode(table.tokens[number], skip_special_tokens=True) for number in numbers]
        assert said == [f"{question[:-1]} ? answer {answer}" for question, answer in own]
        answers = [answerer.tokenizer.decode(table.tokens[n][table.answers[n]]) for n in numbers]
        assert answers == [f"{answer} <eos>" for _, answer in own]
    drawn = table.draw(torch.zeros(200, dtype=torch.long), 2, torch.Generator().manual_seed(0))
    assert (drawn[:, 0] != drawn[:, 1]).all()
    chosen = set(drawn.flatten().tolist())
    assert chosen == set(table.asked[0][table.asked[0] >= 0].tolist())
    everything = table.draw(torch.arange(3), 99, torch.Generator())
    assert ((everything >= 0).sum(1) == (table.asked >= 0).sum(1)).all()


def asked_by(data):
    torch.manual_seed(0)
    return new_answerer(RECIPE, data).eval()


def test_the_loss_is_that_of_each_question_by_itself(data, tmp_path):
    """Questions about one image in one pass do not see each other; image and question cost nothing."""
    answerer = tiny(tmp_path)
    table = read_asked(answerer, data, 16)
    index, drawn = torch.tensor([1, 6]), torch.tensor([[1, 0, -1], [4, 2, 5]])
    alone = []
    for row, numbers in zip(index, drawn, strict=True):
        for number in numbers[numbers >= 0]:
            text = table.tokens[number][table.tokens[number] != answerer.tokenizer.pad_token_id]
            ids = torch.cat([table.prefix, text])
            labels = ids.clone()
            end = len(ids)
            labels[: end - int(table.answers[number].sum())] = -100
            pixels = answerer.eye.prepare(table.images[row][None] / 255)
            with torch.no_grad():
                mean = answerer.model(input_ids=ids[None], pixel_values=pixels, labels=labels[None]).loss
            alone.append(mean * table.answers[number].sum())  # transformers' own mean over tokens
    torch.testing.assert_close(answer_loss(answerer, table, index, drawn), torch.stack(alone).mean())


def test_a_stopped_run_resumes_to_the_same_weights(data, tmp_path, monkeypatch):
    def run(folder, **options):
        return train_answerer(data, RECIPE, schedule(**options), tmp_path / folder, device=CPU)

    whole, outcome = run("a")
    assert outcome.finished
    count = iter(range(10_000))
    with monkeypatch.context() as patch:
        patch.setattr(loop.time, "monotonic", lambda: next(count) * 1.0)  # each look at the clock is a second
        _, stopped = run("b", minutes=0.1)
    assert 0 < stopped.step < 8
    again, outcome = run("b")
    assert outcome.finished
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [
        "chat_template.jinja",
        "checkpoint.pt",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert len({file.stat().st_mode for file in (tmp_path / "b").iterdir()}) == 1  # weights are read by others too
    with pytest.raises(DiffcernError, match=r"other settings .*questions was 2, is 1"):
        train_answerer(data, dataclasses.replace(RECIPE, questions=1), schedule(), tmp_path / "b", device=CPU)


@pytest.mark.slow
def test_it_learns_eight_questions_by_heart(data, tmp_path):
    recipe = dataclasses.replace(RECIPE, width=32, text_width=32, questions=1)
    plan = Regime(images=16 * 200, batch_size=16, learning_rate=5e-3, ema_decay=0.9)
    _, outcome = train_answerer(data, recipe, plan, tmp_path / "llava", device=CPU, autocast=True)
    assert outcome.finished
    answerer = load_answerer(str(tmp_path / "llava"))
    images = torch.stack([question.image for question in data])
    found = answerer(images, [q.question for q in data], [q.choices for q in data])
    answers = [q.choices[row.argmax()] for q, row in zip(data, found, strict=True)]
    assert answers == [q.answer for q in data]
    model = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / "llava").float().eval()
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "llava")
    shown = Image.open(io.BytesIO(picture(COLOURS["dark green"], SIDES[0])))
    inputs = processor(text=f"<image> {COLOUR} answer", images=shown, return_tensors="pt")
    written = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert processor.decode(written) == "dark green <eos>"  # and stops


def test_the_vision_tower_may_be_a_clips(data, tmp_path):
    recipe = dataclasses.replace(RECIPE, vision="embedded:scenes-clip")
    folder = asset("scenes-clip", "predictor")
    clip = transformers.CLIPModel.from_pretrained(folder).float()
    train_answerer(data, recipe, schedule(images=8), tmp_path / "llava", device=CPU)
    trained = load_answerer(str(tmp_path / "llava"))
    pixels = trained.eye.prepare(torch.rand(2, 3, 20, 30))
    assert pixels.shape == (2, 3, 32, 32)  # squeezed, as the table
    with torch.no_grad():
        ours = trained.model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        theirs = clip.vision_model(pixels, output_hidden_states=True).hidden_states
    assert len(ours) == len(theirs) - 1
    torch.testing.assert_close(ours[-1], theirs[-2], rtol=1e-3, atol=1e-3)  # kept in half precision
    seen = transformers.AutoImageProcessor.from_pretrained(folder)
    torch.testing.assert_close(trained.eye.mean.flatten(), torch.tensor(seen.image_mean))
    shallow, torn = (Path(shutil.copytree(folder, tmp_path / name)) for name in ("shallow", "torn"))
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 1
    (shallow / "config.json").write_text(json.dumps(config))
    weights = load_file(torn / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "vision_model.encoder.layers.0" not in name}
    save_file(kept, torn / "model.safetensors", {"format": "pt"})
    for vision, error, message in (
        (str(shallow), UsageError, "has one layer, and the last is left out"),
        (str(torn), DiffcernError, "lacks 16 tensors"),
        (str(tmp_path / "llava"), DiffcernError, "is a llava, not a CLIP"),
        (str(tmp_path / "none"), UsageError, "is no CLIP: give embedded:NAME"),
    ):
        with pytest.raises(error, match=message):
            new_answerer(dataclasses.replace(RECIPE, vision=vision), data)


def test_bad_recipes_and_data(data, tmp_path):
    for change, message in (({"text_width": 15}, "multiple of its heads"), ({"questions": 0}, "at least 1 question")):
        with pytest.raises(UsageError, match=message):
            train_answerer(data, dataclasses.replace(RECIPE, **change), schedule(), tmp_path / "out", device=CPU)
    assert not (tmp_path / "out").exists()
    answerer, other = tiny(tmp_path), question_table(tmp_path / "o.parquet", [row("which color?")])
    with pytest.raises(UsageError, match=r"'color' \(nearest"):
        read_asked(answerer, load_questions(other), 16)
    other = question_table(tmp_path / "o.parquet", [row(SIDE * 9)])
    with pytest.raises(UsageError, match="can be read: shorten it"):
        read_asked(answerer, load_questions(other), 16)


def row(question):
    return {"image": {"bytes": picture((0, 0, 0), "left"), "path": None}, "question": question, "answer": "left"}
