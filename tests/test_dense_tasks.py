"""Segmentation and depth: what the prior is told, and what an answer is measured by, against libraries and by hand."""

import math

import pytest
import torch
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from diffcern.data.base import VOID, Sample
from diffcern.errors import DiffcernError, UsageError
from diffcern.kinds import KINDS
from diffcern.methods import build_method
from diffcern.predictors.native import NativePredictorConfig, native_predictor
from diffcern.priors.native import NativeConfig, native_prior
from diffcern.priors.spatial import Maps
from diffcern.tasks import Classification, Depth, Segmentation, task_of
from diffcern.tasks.depth import filled
from diffcern.types import Inputs

NAMES = ("sky", "road", "car")
IMAGE = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))


def prior_of(maps, size=8):
    torch.manual_seed(0)
    config = NativeConfig("dit", "x0", size, 3, () if maps else NAMES, maps)
    prior = native_prior(config, width=16, depth=1, heads=2, patch=4)
    for weight in prior.denoiser.parameters():  # adaLN-Zero starts as the zero function
        weight.data += 0.05 * torch.randn_like(weight)
    return prior


def predictor_of(task):
    torch.manual_seed(0)
    names = () if task == "depth" else NAMES
    return native_predictor(NativePredictorConfig("small-unet", 16, names, (0.5,) * 3, (0.25,) * 3, 4, 1, task))


SEGMENTING = Maps("segmentation", ("car", "tree", "sky", "road"))
MEASURING = Maps("depth", near=1.0, far=math.e**2)


def test_maps_are_the_mean_shares_of_classes_by_name():
    task = Segmentation(NAMES, prior_of(SEGMENTING))
    mask = torch.zeros(1, 16, 16, dtype=torch.long)  # sky
    mask[:, :, 8:] = 2  # car
    mask[:, :2, :2] = VOID
    maps = task.condition_of_truth(mask).spatial
    assert maps.shape == (1, 4, 8, 8)
    assert torch.equal(maps[0, :, 4, 1], torch.tensor([0.0, 0, 1, 0]))  # sky is the prior's third
    assert torch.equal(maps[0, :, 4, 6], torch.tensor([1.0, 0, 0, 0]))
    assert maps[0, :, 0, 0].sum() < 0.9  # void has no class
    logits = torch.randn(1, 3, 16, 16, requires_grad=True)
    told = task.condition(logits).spatial
    expected = F.interpolate(logits.softmax(1), (8, 8), mode="bilinear", antialias=True)
    assert torch.allclose(told[:, [2, 3, 0]], expected)
    assert torch.allclose(told.sum(1), torch.ones(1, 8, 8), atol=1e-5)
    told[:, 0].sum().backward()
    assert logits.grad.abs().sum() > 0


def test_a_prior_that_cannot_be_told():
    other = prior_of(Maps("segmentation", ("sky", "car")))
    task = Segmentation(NAMES, other)
    with pytest.raises(DiffcernError, match="the prior lacks road"):
        task.check(other)
    build_method("diffpure", predictor_of("segmentation"), other, task, {})  # which tells it nothing
    inputs = [("segmentation", MEASURING, "maps show depth; segmentation needs"), ("depth", None, "takes no maps")]
    for kind, maps, message in [*inputs, ("depth", SEGMENTING, "maps show segmentation; depth needs")]:
        predictor, prior = predictor_of(kind), prior_of(maps)
        with pytest.raises(DiffcernError, match=message):
            build_method("diffusion-tta", predictor, prior, task_of(predictor, prior), {})
        build_method("diffpure", predictor, prior, task_of(predictor, prior), {})  # which tells it nothing
    relative = predictor_of("depth")
    relative.metric = False
    prior = prior_of(MEASURING)
    with pytest.raises(DiffcernError, match="reads metres"):
        build_method("diffusion-tta", relative, prior, task_of(relative, prior), {})
    assert isinstance(task_of(predictor_of("segmentation"), prior_of(SEGMENTING)), Segmentation)


def test_methods_for_classes_alone_say_so():
    predictor, prior = predictor_of("segmentation"), prior_of(SEGMENTING)
    task = task_of(predictor, prior)
    with pytest.raises(
        UsageError,
        match="memo is not for segmentation; these are: source, bn-adapt, tent, auto-contrast, grey-world, diff",
    ):
        build_method("memo", predictor, prior, task, {})
    with pytest.raises(UsageError, match="top_k and gate compare classes of an image"):
        build_method("diffusion-tta", predictor, prior, task, {"gate": 1.0})
    depth, reading = predictor_of("depth"), prior_of(MEASURING)
    with pytest.raises(UsageError, match="temperature softens probabilities"):
        build_method("diffusion-tta", depth, reading, task_of(depth, reading), {"temperature": 2.0})
    with pytest.raises(UsageError, match="depth has no confidence"):
        build_method("dda", depth, reading, task_of(depth, reading), {"ensemble": "entropy"})
    with pytest.raises(UsageError, match="tent is not for depth"):
        build_method("tent", depth, reading, task_of(depth, reading), {})


@pytest.mark.parametrize(("kind", "maps"), [("segmentation", SEGMENTING), ("depth", MEASURING)])
def test_feedback_lowers_the_error_that_it_descends(kind, maps):
    predictor, prior = predictor_of(kind), prior_of(maps)
    options = {"steps": 8, "draws": 8, "strategy": "stratified", "resample": False}
    options |= {"optimizer": "sgd", "learning_rate": 1.0, "weighting": "x0"}
    method = build_method("diffusion-tta", predictor, prior, task_of(predictor, prior), options)
    prediction, _ = method.step(method.init(), Inputs(IMAGE[None], ["a"]), 0)
    trace = prediction.trace[0]
    assert trace[-1] < trace[0] - 1e-5
    with torch.no_grad():
        assert prediction.output.shape == predictor(IMAGE[None]).shape


@pytest.mark.parametrize(("kind", "maps"), [("segmentation", SEGMENTING), ("depth", MEASURING)])
def test_purification_answers_in_the_size_of_the_image(kind, maps):
    predictor, prior = predictor_of(kind), prior_of(maps)
    task = task_of(predictor, prior)
    options = {"start": 200, "steps": 2, "weight": 0.1, "form": "estimate"}
    both = build_method("dda", predictor, prior, task, options).step(None, Inputs(IMAGE[None], ["a"]), 0)[0]
    alone = build_method("dda", predictor, prior, task, {**options, "ensemble": "none"})
    after = alone.step(None, Inputs(IMAGE[None], ["a"]), 0)[0]
    source = predictor(IMAGE[None]).detach()
    if kind == "depth":
        assert torch.allclose(both.output, (source + after.output) / 2, rtol=1e-5)
    else:
        mean = (source.softmax(1) + after.probabilities) / 2
        assert torch.allclose(both.probabilities, mean, atol=1e-5)
    assert after.output.shape == source.shape


def test_segmentation_is_measured_as_torchmetrics_does():
    task, rng = Segmentation(NAMES), torch.Generator().manual_seed(1)
    outputs = torch.randn(3, 3, 16, 16, generator=rng)
    masks = torch.randint(0, 3, (3, 16, 16), generator=rng)
    masks[0, :3] = VOID
    rows = [task.statistics(o, Sample("a", IMAGE, -1, mask=m)) for o, m in zip(outputs, masks, strict=True)]
    sums = torch.tensor(rows).double().sum(0).numpy()
    shared = {"num_classes": 3, "ignore_index": VOID}
    expected = (
        MulticlassJaccardIndex(**shared, average="macro"),
        MulticlassAccuracy(**shared, average="macro"),
        MulticlassAccuracy(**shared, average="micro"),
    )
    for metric, reference in zip(KINDS["segmentation"].metrics, expected, strict=True):
        assert metric.of(sums) == pytest.approx(reference(outputs.argmax(1), masks).item(), abs=1e-6), metric.name
    half = task.statistics(outputs[1, :, ::2, ::2], Sample("a", IMAGE, -1, mask=masks[1]))  # resized to the mask
    assert sum(half[:3]) <= 256 == sum(half[6:])


def test_depth_is_measured_where_it_is_known():
    task = Depth(metric=True)
    truth = torch.full((16, 16), 2.0)
    truth[:, :4] = 0  # unknown
    answer = torch.full((16, 16), 2.2)
    answer[8:] = 3.0
    answer[:, :4] = 99.0
    delta, absolute, rmse, ssim, one = task.statistics(answer, Sample("a", IMAGE, -1, depth=truth))
    assert (delta, one) == (0.5, 1.0)
    assert absolute == pytest.approx((0.1 + 0.5) / 2)
    assert rmse == pytest.approx(math.sqrt((0.2**2 + 1.0) / 2))
    assert ssim < 1
    perfect = task.statistics(truth.clamp(min=1e-3), Sample("a", IMAGE, -1, depth=truth))
    assert perfect == pytest.approx([1, 0, 0, 1, 1], abs=1e-5)


def test_relative_inverse_depth_is_brought_to_the_truths_scale_and_shift():
    truth = 1 + torch.rand(16, 16, generator=torch.Generator().manual_seed(0))
    relative = 7 / truth - 2  # any scale and shift
    values = Depth(metric=False).statistics(relative, Sample("a", IMAGE, -1, depth=truth))
    assert values[:2] == pytest.approx([1, 0], abs=1e-4)


def test_depth_maps_are_logarithmic_between_bounds_or_inverse_within_the_image():
    metres = torch.tensor([1.0, math.e, math.e**2, math.e**3]).repeat_interleave(4).repeat(16, 1)[None]  # [1, 16, 16]
    told = Depth(True, prior_of(MEASURING, size=16)).condition_of_truth(metres).spatial
    assert torch.allclose(
        told[0, 0, 0, ::4], torch.tensor([-1.0, 0, 1, 2]), atol=1e-5
    )  # no bound: it would end the gradient
    relative = Depth(False, prior_of(Maps("depth"), size=16))
    condition = relative.condition(5 / metres + 3).spatial
    assert condition.amin() == -1
    assert condition.amax() == 1
    shown = relative.condition_of_truth(metres).spatial
    assert torch.allclose(condition, shown, atol=1e-5)  # scale and shift play no part


def test_truths_that_are_none():
    segmentation, depth = Segmentation(NAMES), Depth(True)
    logits, metres = torch.zeros(3, 16, 16), torch.ones(16, 16)
    wrong = torch.full((16, 16), 3)
    with pytest.raises(DiffcernError, match=r"mask of x holds \[3\], and there are 3 classes"):
        segmentation.statistics(logits, Sample("x", IMAGE, -1, mask=wrong))
    with pytest.raises(DiffcernError, match="image of x has 16 x 16 pixels and its truth 20 x 16"):
        segmentation.statistics(logits, Sample("x", IMAGE, -1, mask=torch.zeros(16, 20, dtype=torch.long)))
    for bad, message in ((-1.0, "negative or not finite"), (math.inf, "negative or not finite"), (0.0, "unknown")):
        with pytest.raises(DiffcernError, match=message):
            depth.statistics(metres, Sample("x", IMAGE, -1, depth=torch.full((16, 16), bad)))
    assert segmentation.statistics(logits, Sample("x", IMAGE, -1)) == []
    assert Classification(NAMES, NAMES).statistics(torch.eye(3)[1], Sample("x", IMAGE, 1)) == [1, 1]


def test_holes_take_the_nearest_known_depth():
    depth = torch.tensor([[1.0, 0, 0, 4.0]])
    assert filled(depth).tolist() == [[1, 1, 4, 4]]
