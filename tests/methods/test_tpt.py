"""TPT against its equation, and what it may move."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diffcern.errors import UsageError
from diffcern.methods import build_method
from diffcern.methods.tpt import CONTEXT, crops, surest
from diffcern.predictors import Predictor, load_predictor
from diffcern.predictors.clip import ZeroShot
from diffcern.predictors.transformers_models import text_tokenizer
from diffcern.rng import generator
from diffcern.types import Inputs

LABELS, TEMPLATE = ["cube", "cone", "ring", "sphere"], "a scene with a {} and a ring"
OPTIONS = {"template": TEMPLATE, "views": 16, "share": 0.25}


@pytest.fixture(scope="module")
def clip():
    return load_predictor("embedded:scenes-clip", labels=LABELS, templates=[TEMPLATE])


@pytest.fixture(scope="module")
def picture():
    return Inputs(torch.rand(1, 3, 40, 48, generator=torch.Generator().manual_seed(0)), ["a"])


def written(predictor, images, context):
    """p(y | x, v) by transformers' own CLIPModel, whose embeddings of tokens 1 to M are overwritten as it runs."""
    import transformers

    from diffcern.assets import asset

    folder = asset("scenes-clip", "predictor")
    model = transformers.CLIPModel.from_pretrained(folder).float().eval().requires_grad_(False)
    tokens = text_tokenizer(folder, "clip")([TEMPLATE.format(label) for label in LABELS], return_tensors="pt")

    def overwrite(module, given, embedded):
        return torch.cat([embedded[:, :1], context.expand(len(embedded), -1, -1), embedded[:, 1 + len(context) :]], 1)

    model.text_model.embeddings.token_embedding.register_forward_hook(overwrite)
    return model(pixel_values=predictor.prepare(images), **tokens).logits_per_image


def test_a_step_is_the_equations_gradient(clip, picture):
    method = build_method("tpt", clip, None, None, {**OPTIONS, "learning_rate": 0.05})
    start = method.init()
    assert list(start.parameters) == [CONTEXT]  # nothing else moves
    assert start.parameters[CONTEXT].shape == (4, 96)  # "a scene with a"
    prediction, state = method.step(start, picture, 3)
    v = start.parameters[CONTEXT].clone().requires_grad_()
    seen = clip.resize(picture.images)
    views = torch.cat([seen, crops(picture.images[0], 15, generator(3, "tpt", "a"), (32, 32))])
    p = written(clip, views, v).softmax(-1)
    each = -(p * p.log()).sum(-1)
    m = p[each.detach().argsort()[:4]].mean(0)  # a quarter of 16
    entropy = -(m * m.log()).sum()
    assert prediction.trace[0] == pytest.approx([entropy.item()], abs=1e-5)
    g = torch.autograd.grad(entropy, v)[0]
    moved = v - 0.05 * 0.01 * v - 0.05 * g / (g.abs() + 1e-8)  # AdamW's first step, torch's weight decay
    firm = g.abs() > 1e-5 * g.abs().max()  # beyond the noise of fp32, whose sign AdamW would follow too
    assert firm.float().mean() > 0.99
    assert torch.allclose(state.parameters[CONTEXT][firm], moved[firm], atol=1e-5)
    assert torch.allclose(prediction.output, written(clip, seen, state.parameters[CONTEXT]), atol=1e-4)


def test_it_begins_with_the_templates_own_words(clip, picture):
    """Before a step the answer is that of the CLIP which is told the template; `restrict` holds for both."""
    options = {**OPTIONS, "learning_rate": 0.0}
    method = build_method("tpt", clip, None, None, options)
    assert torch.allclose(method.step(method.init(), picture, 0)[0].output, clip(picture.images), atol=1e-4)
    some = load_predictor("embedded:scenes-clip", labels=LABELS, templates=[TEMPLATE]).restrict(["ring", "cube"])
    method = build_method("tpt", some, None, None, options)
    output = method.step(method.init(), picture, 0)[0].output
    assert torch.allclose(output, clip(picture.images)[:, [2, 0]], atol=1e-4)


def test_steps_lower_the_entropy_of_the_same_views(clip, picture):
    method = build_method("tpt", clip, None, None, {**OPTIONS, "steps": 5, "learning_rate": 1e-3, "share": 1.0})
    losses = method.step(method.init(), picture, 0)[0].trace[0]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_the_surest_views_are_kept_of_each_image():
    sharpness = torch.tensor([[1.0, 5.0, 3.0], [2.0, 0.0, 9.0]])
    logits = sharpness[..., None] * torch.tensor([1.0, 0.0])
    assert torch.equal(surest(logits, 2)[..., 0], torch.tensor([[5.0, 3.0], [9.0, 2.0]]))
    assert surest(logits, 1).shape == (2, 1, 2)


def test_crops_belong_to_the_image_and_leave_the_global_generator_alone():
    """Parts of the image at their size, some mirrored: what runs from left to right runs back in about half."""
    ramp = torch.linspace(0, 1, 40).expand(3, 30, 40)
    before = torch.get_rng_state()
    made = crops(ramp, 100, generator(0, "tpt", "a"), (16, 16))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(crops(ramp, 100, generator(0, "tpt", "a"), (16, 16)), made)
    assert not torch.equal(crops(ramp, 100, generator(0, "tpt", "b"), (16, 16)), made)
    assert made.shape == (100, 3, 16, 16)
    assert 0 <= made.min() < made.max() <= 1
    mirrored = (made[..., 0].mean((1, 2)) > made[..., -1].mean((1, 2))).float().mean()
    assert 0.3 < mirrored < 0.7
    spans = (made[..., 0] - made[..., -1]).abs().mean((1, 2))
    assert spans.min() < 0.5 < spans.max()
    assert crops(ramp, 0, generator(0, "tpt", "a"), (16, 16)).shape == (0, 3, 16, 16)


def test_what_it_cannot_learn_for_is_refused(predictor, clip):
    with pytest.raises(UsageError, match="tpt learns words for a CLIP, and this predictor reads none"):
        build_method("tpt", predictor, None, None, {})
    told = ZeroShot(nn.Identity(), nn.Identity(), F.normalize(torch.rand(2, 3)), torch.ones(()), torch.zeros(1))
    with pytest.raises(UsageError, match="SigLIP is none"):  # of which no text tower is read again
        build_method("tpt", Predictor(told, ("a", "b")), None, None, {})
    for template in ("a scene", "{} in a scene", "a {} {}"):
        with pytest.raises(UsageError, match="template is words with"):
            build_method("tpt", clip, None, None, {"template": template})
    with pytest.raises(UsageError, match="photo"):  # a word that the scenes' CLIP was never told
        build_method("tpt", clip, None, None, {})
    with pytest.raises(UsageError, match="longer than the 16 tokens"):
        build_method("tpt", clip, None, None, {"template": "a scene with " * 6 + "a {}"})
    for options in ({"share": 0.0}, {"share": 1.5}, {"views": 0}, {"steps": 0}, {"optimizer": "adagrad"}):
        with pytest.raises(UsageError):
            build_method("tpt", clip, None, None, {**OPTIONS, **options})
