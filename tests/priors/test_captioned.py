"""Our own prior that reads captions; what it shares with all priors is in test_conformance."""

import copy

import pytest
import torch
from caption_checkpoints import CAPTIONS, tiny

from diffcern.errors import DiffcernError, UsageError
from diffcern.fingerprints import fingerprint
from diffcern.labels import vocabulary_of
from diffcern.priors import TextPrior, load_prior
from diffcern.types import Condition
from diffcern.words import token_ids, word_tokenizer

SHORT, LONG = CAPTIONS
SAME = {"rtol": 0, "atol": 1e-5}  # other batch sizes and lengths: rounding of the products


@pytest.fixture(scope="module")
def prior():
    return tiny()


@pytest.fixture
def noisy(prior):
    torch.manual_seed(1)
    return torch.randn(2, *prior.latent_shape), torch.tensor([3, 600])


def test_words_are_tokens():
    tokenizer = word_tokenizer(["A red cube, left of a cube.", "the end"])
    assert sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get) == [
        *("<pad>", "<unk>", "<bos>", "<eos>"),
        *(",", ".", "a", "cube", "end", "left", "of", "red", "the"),
    ]
    assert tokenizer.model_max_length == 16  # 9 words and marks, two ends, rounded up
    (ids,) = token_ids(tokenizer, ["the RED  cube"]).tolist()
    assert tokenizer.convert_ids_to_tokens(ids) == ["<bos>", "the", "red", "cube", "<eos>", *["<pad>"] * 11]


def test_the_empty_condition_is_the_empty_prompt(prior, noisy):
    null = prior(*noisy, Condition()).output
    torch.testing.assert_close(null, prior(*noisy, prior.prompts(["", ""])).output, **SAME)
    assert not torch.allclose(null, prior(*noisy, prior.prompts([SHORT] * 2)).output, atol=1e-4)


def test_a_caption_is_the_same_in_any_company(prior):
    alone, among = prior.prompts([SHORT]).tokens, prior.prompts([LONG, SHORT, ""]).tokens
    assert alone.shape[1:] == among.shape[1:]
    torch.testing.assert_close(alone[0], among[1], **SAME)


def test_words_do_not_depend_on_the_padding_behind_them(prior):
    ids = token_ids(prior.encoder.tokenizer, [SHORT])
    count = int((ids != prior.encoder.tokenizer.pad_token_id).sum())
    assert count < ids.shape[1]
    with torch.no_grad():
        torch.testing.assert_close(prior.encoder.read(ids)[:, :count], prior.encoder.read(ids[:, :count]), **SAME)


def test_every_word_reaches_the_network(prior, noisy):
    """Also the last one, and the order: "a green square" is not "a square green"."""
    x, t = noisy
    texts = ["a green square", "a green field", "a square green"]
    outputs = [prior(x[:1], t[:1], prior.prompts([text])).output for text in texts]
    assert all((outputs[0] - other).abs().max() > 1e-4 for other in outputs[1:])


def test_labels_are_prompts_and_mixtures_their_means(prior, noisy):
    labels = copy.deepcopy(prior).with_labels(vocabulary_of({"red": [SHORT], "blue": [LONG, "a blue field"]}, None))
    assert labels.encoder is prior.encoder  # copies share it
    assert labels.class_names == ("red", "blue")
    tokens = prior.prompts([SHORT, LONG, "a blue field"]).tokens
    mixed = 0.25 * tokens[:1] + 0.75 * (tokens[1:2] + tokens[2:]) / 2
    output = labels(*noisy, Condition(classes=torch.tensor([[0.25, 0.75]]).expand(2, -1))).output
    torch.testing.assert_close(output, prior(*noisy, Condition(tokens=mixed.expand(2, -1, -1))).output, **SAME)
    phrases, owners = labels.phrasings(labels.hypotheses())
    assert owners.tolist() == [0, 1, 1]
    torch.testing.assert_close(phrases.tokens, tokens, **SAME)


def test_unknown_words_and_long_captions_are_named(prior):
    with pytest.raises(UsageError, match=r"'a crimson sqare'.*'crimson' \(nearest: .*'sqare' \(nearest: square"):
        prior.prompts([SHORT, "a crimson sqare"])
    limit = prior.encoder.tokenizer.model_max_length
    prior.prompts(["red " * (limit - 2)])
    with pytest.raises(UsageError, match=rf"longer than the {limit} tokens .* lest 'green blue' be cut off"):
        prior.prompts(["red " * (limit - 2) + "green blue"])
    with pytest.raises(UsageError, match=r"'photo'"):
        copy.deepcopy(prior).with_labels(vocabulary_of(["red", "blue"], None))  # a photo of a red.


@pytest.mark.parametrize("kind", ["x0", "v"])
def test_saved_and_loaded_it_is_the_same(kind, tmp_path, noisy):
    prior = tiny(kind=kind)
    prior.clean_errors = torch.linspace(0.1, 0.2, 101)
    prior.save_pretrained(tmp_path / "exact", torch.float32)
    again = load_prior(str(tmp_path / "exact"))
    assert isinstance(again, TextPrior)
    assert again.kind == kind
    assert torch.allclose(again.clean_errors, prior.clean_errors, atol=1e-6)
    for texts in ([SHORT, LONG], ["", "a large field"]):
        assert torch.equal(again(*noisy, again.prompts(texts)).output, prior(*noisy, prior.prompts(texts)).output)
    assert torch.equal(again(*noisy, Condition()).output, prior(*noisy, Condition()).output)
    prior.clean_errors = again.clean_errors  # stored with six digits
    assert fingerprint(again) == fingerprint(prior)
    prior.save_pretrained(tmp_path / "half")
    half = load_prior(str(tmp_path / "half"), labels=["red", "blue"], templates=["a {} square"])
    assert half.class_names == ("red", "blue")
    assert all(network.dtype == torch.float32 for network in (half.denoiser, half.encoder.network))
    output, expected = half(*noisy, half.prompts([SHORT, LONG])).output, prior(*noisy, prior.prompts([SHORT, LONG]))
    torch.testing.assert_close(output, expected.output, rtol=0, atol=0.02)  # weights have 11 bits
    assert not list(tmp_path.rglob("*.bin"))


def test_the_fingerprint_covers_the_text_encoder(prior):
    other = tiny()
    assert fingerprint(other) == fingerprint(prior)
    next(iter(other.encoder.network.parameters()))[:1] += 1
    assert fingerprint(other) != fingerprint(prior)


def test_grey(tmp_path):
    grey = tiny(channels=1)
    assert grey.encode(torch.rand(1, 3, 20, 30)).shape == (1, 1, 8, 8)
    assert grey.decode(torch.zeros(1, 1, 8, 8)).shape == (1, 3, 8, 8)


def test_damaged_folders_are_named(prior, tmp_path):
    prior.save_pretrained(tmp_path)
    weights = tmp_path / "text_encoder" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    with pytest.raises(DiffcernError, match=r"text_encoder/model\.safetensors: .*truncated"):
        load_prior(str(tmp_path))
    weights.write_bytes(whole)
    (tmp_path / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(DiffcernError, match=r"lacks tokenizer/tokenizer\.json"):
        load_prior(str(tmp_path))
    (tmp_path / "prior.json").write_text("{}")
    with pytest.raises(DiffcernError, match=r"cannot read .*prior\.json"):
        load_prior(str(tmp_path))
