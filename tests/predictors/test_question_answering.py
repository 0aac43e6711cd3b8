"""LLaVA as a predictor: what it says of each choice is what transformers computes, one choice at a time."""

import json

import pytest
import torch
import transformers
from PIL import Image
from question_checkpoints import COLOUR, COLOURS, RECIPE, SIDE, SIDES, saved, tiny
from safetensors.torch import load_file, save_file

from diffcern.errors import DiffcernError, UsageError
from diffcern.fingerprints import fingerprint
from diffcern.predictors.question_answering import choice_log_probabilities, load_answerer, save_answerer

IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)).mul(255).round().div(255)
QUESTIONS = [COLOUR, SIDE, "which side is red?"]
CHOICES = [list(COLOURS), list(SIDES), [*SIDES, "dark green"]]


@pytest.fixture
def answerer(tmp_path):
    return tiny(tmp_path)


def test_transformers_itself_reads_the_folder_and_says_the_same(tmp_path):
    folder = saved(tmp_path / "llava")
    ours = load_answerer(str(folder))
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    with torch.no_grad():
        answers = ours(IMAGES, QUESTIONS, CHOICES).exp()
        for image, question, choices, answer in zip(IMAGES, QUESTIONS, CHOICES, answers, strict=True):
            asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
            prompt = processor.apply_chat_template(asked, add_generation_prompt=True)
            assert prompt == f"<image> {question} answer"
            picture = Image.fromarray(image.permute(1, 2, 0).mul(255).byte().numpy())
            begin = processor(text=prompt, images=picture, return_tensors="pt")["input_ids"].shape[1]
            scores = []
            for choice in choices:
                inputs = processor(text=f"{prompt} {choice}", images=picture, return_tensors="pt")
                logits = model(**inputs).logits[0].log_softmax(-1)
                tokens = inputs["input_ids"][0]
                own = [logits[k - 1, tokens[k]] for k in range(begin, len(tokens))]
                scores.append(torch.stack(own).mean())  # one of them has two words
                assert len(own) == len(choice.split())
            expected = torch.stack(scores).softmax(0)
            torch.testing.assert_close(answer[: len(choices)], expected, rtol=1e-4, atol=1e-5)
            assert (answer[len(choices) :] == 0).all()


def test_what_it_generates_is_the_likeliest_word(tmp_path):
    folder = saved(tmp_path / "llava")
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = transformers.AutoProcessor.from_pretrained(folder)
    picture = Image.fromarray(IMAGES[0].permute(1, 2, 0).mul(255).byte().numpy())
    inputs = processor(text=f"<image> {SIDE} answer", images=picture, return_tensors="pt")
    word = processor.decode(model.generate(**inputs, max_new_tokens=1, do_sample=False)[0, -1])
    answerer = load_answerer(str(folder))
    words = [word for word in answerer.words if word.isalpha()]
    assert word not in words or words[answerer(IMAGES[:1], [SIDE], [words]).argmax()] == word


def test_probabilities_belong_to_the_image_and_its_question(answerer):
    together = answerer(IMAGES, QUESTIONS, CHOICES)
    assert together.shape == (3, 4)
    torch.testing.assert_close(together.exp().sum(1), torch.ones(3))
    for row in range(3):
        alone = answerer(IMAGES[row : row + 1], QUESTIONS[row : row + 1], CHOICES[row : row + 1])
        # padded sequences are summed in another order: the last bits of fp32
        torch.testing.assert_close(together[row, : len(CHOICES[row])], alone[0], rtol=1e-4, atol=1e-5)
    turned = answerer(IMAGES[:1], [COLOUR], [CHOICES[0][::-1]])
    torch.testing.assert_close(turned.flip(1)[0], together[0], rtol=1e-4, atol=1e-5)  # choices do not see each other
    other = answerer(IMAGES[1:2], [COLOUR], [CHOICES[0]])
    assert not torch.allclose(other[0], together[0], atol=1e-3)


def test_scores_are_means_only_where_lengths_differ():
    found = torch.tensor([[0.0, -1.0, -2.0, -4.0], [0.0, -1.0, -2.0, 9.0]])
    owners = torch.tensor([[0, 1, 2, 2], [0, 1, 2, -1]])
    expected = torch.tensor([[-1.0, -3.0], [-1.0, -2.0]]).log_softmax(1)
    torch.testing.assert_close(choice_log_probabilities(found, owners), expected)
    even = choice_log_probabilities(torch.tensor([[-1.0, -2.0, -3.0, -4.0]]), torch.tensor([[1, 1, 2, 2]]))
    torch.testing.assert_close(even, torch.tensor([[-3.0, -7.0]]).log_softmax(1))


def test_the_gradient_reaches_the_image(answerer):
    images = IMAGES[:1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(answerer(images, [COLOUR], [list(COLOURS)])[0, 0], images)
    step = 1e-2 * gradient / gradient.norm()
    with torch.no_grad():
        rise = answerer(IMAGES[:1] + step, [COLOUR], [list(COLOURS)]) - answerer(
            IMAGES[:1] - step, [COLOUR], [list(COLOURS)]
        )
    torch.testing.assert_close(rise[0, 0], 2e-2 * gradient.norm(), rtol=0.05, atol=1e-5)  # central difference


def test_images_of_other_sizes(answerer):
    large = torch.nn.functional.interpolate(IMAGES, scale_factor=2, mode="nearest")
    torch.testing.assert_close(
        answerer(large, QUESTIONS, CHOICES), answerer(IMAGES, QUESTIONS, CHOICES), atol=0.1, rtol=0
    )


def test_other_weights_or_words_have_another_fingerprint(answerer, tmp_path):
    before = fingerprint(answerer)
    save_answerer(answerer, tmp_path / "saved", torch.float32)
    assert fingerprint(load_answerer(str(tmp_path / "saved"))) == before
    answerer.words = answerer.words[::-1]
    assert fingerprint(answerer) != before


@pytest.mark.parametrize(
    ("question", "choices", "message"),
    [
        (" ", SIDES, "the question is empty"),
        (SIDE, [], "has no choices"),
        (SIDE, ["left", "left"], "different texts, not 'left', 'left'"),
        (SIDE, ["left", " "], "different texts"),
        ("what color is it?", SIDES, r"'color' \(nearest: colour"),
        (SIDE, ["left", "above"], r"'above' \(nearest"),
        ("what is <image>?", SIDES, "stands for the image"),
        ("what colour is it? " * 3, SIDES, "has 15 tokens, and .* reads 13: shorten it, lest 'it .' be cut off"),
    ],
)
def test_questions_that_cannot_be_asked(answerer, question, choices, message):
    with pytest.raises(UsageError, match=message):
        answerer(IMAGES[:1], [question], [choices])


def test_one_question_for_each_image(answerer):
    with pytest.raises(UsageError, match="2 images, 1 questions, 1 lists"):
        answerer(IMAGES[:2], [SIDE], [SIDES])


def test_what_is_no_llava(tmp_path):
    with pytest.raises(UsageError, match="diffcern train answerer"):
        load_answerer(str(tmp_path))
    with pytest.raises(UsageError, match="unknown embedded predictor"):
        load_answerer("embedded:nothing")
    transformers.CLIPVisionConfig().save_pretrained(tmp_path / "clip")
    with pytest.raises(DiffcernError, match="clip_vision_model; questions are answered by llava"):
        load_answerer(str(tmp_path / "clip"))


def test_folders_that_are_damaged(tmp_path):
    folder = saved(tmp_path / "llava")
    weights = load_file(folder / "model.safetensors")
    name = next(iter(weights))
    save_file(
        {key: value for key, value in weights.items() if key != name}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(DiffcernError, match="do not fit its config"):
        load_answerer(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(DiffcernError, match="no weights in safetensors"):
        load_answerer(str(folder))
    folder = saved(tmp_path / "other")
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'][1]['text'] }}")
    with pytest.raises(DiffcernError, match="its chat template makes"):
        load_answerer(str(folder))
    folder = saved(tmp_path / "old")
    config = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps(config | {"patch_size": None}))
    with pytest.raises(DiffcernError, match="must give patch_size"):
        load_answerer(str(folder))


def test_a_repository_as_published(tmp_path, publish):
    """LLaVA 1.5's form: a separate preprocessor_config.json that crops, roles in the prompt, a line for the image."""
    folder = saved(tmp_path / "llava")
    config = json.loads((folder / "processor_config.json").read_text())
    images = config.pop("image_processor") | {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    (folder / "preprocessor_config.json").write_text(json.dumps(images | {"do_center_crop": True}))
    (folder / "processor_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(
        "{% for message in messages %}{{ message['role'] }} : {% for part in message['content'] %}"
        "{{ '<image>\n' if part['type'] == 'image' else part['text'] }}{% endfor %} {% endfor %}"
        "{% if add_generation_prompt %}answer :{% endif %}"
    )
    publish(folder, "someone/llava")
    answerer = load_answerer("hf:someone/llava")
    assert answerer.template == "user : <image>\n{question} answer :"
    prompt, answers = answerer.read(SIDE, SIDES)
    assert prompt.count(answerer.processor.image_token_id) == answerer.image_tokens == (16 // RECIPE.patch) ** 2
    assert [answerer.tokenizer.decode(tokens) for tokens in answers] == list(SIDES)
    wide = torch.cat([IMAGES, 0 * IMAGES], 3).roll(8, 3)
    torch.testing.assert_close(answerer(wide, QUESTIONS, CHOICES), answerer(IMAGES, QUESTIONS, CHOICES))
