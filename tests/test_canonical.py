"""The canonical view of one image, found by the shipped prior of digits."""

import hub_checkpoints
import pytest
import torch

from diffcern.canonical import Search, canonical_view
from diffcern.data import load_dataset
from diffcern.data.shifts import shift
from diffcern.errors import DiffcernError, UsageError
from diffcern.given import parse_set
from diffcern.methods import build_method, checked_options
from diffcern.methods.canonical import THEN, Canonical
from diffcern.methods.presets import preset_options
from diffcern.predictors import load_predictor
from diffcern.priors import load_prior
from diffcern.tasks import TASKS, Classification
from diffcern.transformations import IDENTITY, Transformation
from diffcern.types import Inputs
from diffcern.views import FAMILIES

COUNT = 6


@pytest.fixture(scope="module")
def world():
    data = load_dataset("embedded:digits/validation")
    return load_prior("embedded:digits"), [data[k] for k in range(0, 10 * COUNT, 10)]


def views(world, what, search, severity=4):
    prior, samples = world
    images = [shift(s.image, what, severity, 0, s.id)[None] if severity else s.image[None] for s in samples]
    return [canonical_view(prior, image, s.id, search) for s, image in zip(samples, images, strict=True)]


def test_light_is_found_and_familiar_images_are_left_alone(world):
    search = Search(families=("light",))
    for view in views(world, "contrast", search):
        assert min(view.transformation.gain) > 1.5
        assert view.nats > 10
        assert 0 < view.evaluations <= search.budget
    for sample, view in zip(world[1], views(world, "clean", search, 0), strict=True):
        assert (view.transformation.apply(sample.image[None]) - sample.image).abs().max() < 0.2  # full black and white


def test_turns_are_found(world):
    prior, samples = world
    search = Search(families=("turn",), margin=5.0)
    turned = Transformation(turn=-35.0)
    found = [canonical_view(prior, turned.apply(s.image[None]), s.id, search) for s in samples]
    assert sum(abs(view.transformation.turn - 35) < 20 for view in found) >= COUNT - 2


def test_pure_noise_keeps_its_pose(world):
    """A turn that smooths noise would make it likelier. What is judged by chance may turn, once in a while."""
    prior, _ = world
    search, turned = Search(families=("turn",)), 0
    for seed in range(12):
        noise = (0.5 + 0.2 * torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(seed))).clamp(0, 1)
        turned += canonical_view(prior, noise, f"noise-{seed}", search).transformation != IDENTITY
    assert turned <= 1


def test_an_image_without_contrast_is_left_alone(world):
    """Its gain is undefined, and no turn of it can be told."""
    prior, _ = world
    everything = Search(families=tuple(FAMILIES), budget=400)
    for level in (0.0, 0.4, 1.0):
        view = canonical_view(prior, torch.full((1, 3, 16, 16), level), "flat", everything)
        assert view.transformation == IDENTITY


def test_a_view_that_is_not_surely_likelier_is_none(world):
    prior, samples = world
    dark = shift(samples[0].image, "contrast", 4, 0, "x")[None]
    assert canonical_view(prior, dark, "x", Search(families=("light",), margin=1e6)).transformation == IDENTITY


def test_every_family_finds_what_was_done(world):
    prior, samples = world
    for family, done, undone in (
        ("gamma", Transformation(gamma=2.0), lambda view: view.gamma < 0.8),
        ("shift", Transformation(shift=(0.25, 0.0)), lambda view: view.shift[0] < -0.05),
        ("scale", Transformation(scale=0.7), lambda view: view.scale > 1.1),
    ):
        search = Search(families=(family,), margin=0.0, budget=200)
        found = [canonical_view(prior, done.apply(s.image[None]), s.id, search).transformation for s in samples]
        assert sum(map(undone, found)) >= COUNT // 2, (family, found)
    blurred = views(world, "blur", Search(families=("sharpen",), budget=200))
    assert sum(view.transformation.sharpen > 0 for view in blurred) >= COUNT // 2


def test_the_method_answers_on_the_view_and_says_what_it_is(world):
    prior, samples = world
    predictor = load_predictor("embedded:digits")
    task = Classification(predictor.class_names, prior.class_names)
    method = Canonical(predictor, prior, task, views=("light",))
    images = torch.stack([shift(s.image, "background", 4, 0, s.id) for s in samples])
    answer, _ = method.step(method.init(), Inputs(images, [s.id for s in samples]), 0)
    targets = torch.tensor([s.target for s in samples])
    assert (predictor(images).argmax(1) == targets).sum() <= COUNT // 2
    assert (answer.output.argmax(1) == targets).sum() >= COUNT - 1
    numbers = {"view_nats", "view_nats_standard_error", "view_gain", "view_offset", "view_turn"}
    assert all(note.keys() == numbers for note in answer.notes)
    assert all(0 < note["view_nats_standard_error"] < note["view_nats"] for note in answer.notes if note["view_nats"])
    assert all(0 < cost.nfe_forward <= method.evaluations for cost in answer.costs)
    feedback = Canonical(predictor, prior, task, views=("light",), then="diffusion-tta", then_preset="small")
    assert feedback.evaluations == method.evaluations + feedback.then.evaluations
    one = Inputs(images[:1], [samples[0].id])
    spent = feedback.step(feedback.init(), one, 0)[0].costs[0]
    assert spent.nfe_backward == 20
    assert spent.nfe_forward == 20 + answer.costs[0].nfe_forward


def test_the_view_of_the_frame_before_stays_for_a_part_of_a_search(world):
    """While the light is the same; where it is healed, the frame is searched, and left alone."""
    prior, samples = world
    frames = [shift(s.image, "background", 4, 0, s.id)[None] for s in samples]
    search = Search(families=("light",))
    first = canonical_view(prior, frames[0], samples[0].id, search)
    later = [canonical_view(prior, f, s.id, search, known=first) for f, s in zip(frames[1:], samples[1:], strict=True)]
    assert sum(view.transformation == first.transformation for view in later) >= COUNT - 2
    kept = [view.evaluations for view in later if view.transformation == first.transformation]
    assert max(kept) < first.evaluations / 2
    clean = canonical_view(prior, samples[1].image[None], samples[1].id, search, known=first)
    assert clean.transformation != first.transformation
    assert (clean.transformation.apply(samples[1].image[None]) - samples[1].image).abs().max() < 0.2


@pytest.mark.parametrize("then", sorted(set(THEN) - {"source", "gda"}))
def test_what_answers_on_the_view(world, then):
    """The answer, and its costs, are those of the method itself on the view that was found."""
    prior, samples = world
    predictor = load_predictor("embedded:digits")
    task = Classification(predictor.class_names, prior.class_names)
    how = {"views": ("light",), "then": then, "then_preset": "small"}
    method = Canonical(predictor, prior, task, **how)
    image = shift(samples[0].image, "contrast", 4, 0, samples[0].id)[None]
    answer, _ = method.step(method.init(), Inputs(image, [samples[0].id]), 0)
    view = canonical_view(prior, image, samples[0].id, method.search, looked_at=predictor.view)
    seen = view.transformation.apply(image).clamp(0, 1)
    alone, _ = method.then.step(method.then.init(), Inputs(seen, [samples[0].id]), 0)
    assert torch.equal(answer.output, alone.output)
    assert answer.costs[0].nfe_forward == view.evaluations + alone.costs[0].nfe_forward


def test_a_familiar_frame_leaves_what_feedback_has_learnt(world):
    """Online the weights go on from the strange frame before, past one that needs no feedback."""
    prior, samples = world
    predictor = load_predictor("embedded:digits")
    task = Classification(predictor.class_names, prior.class_names)
    how = {"views": ("light",), "then": "diffusion-tta", "then_preset": "small", "familiar": 0.99}
    method = Canonical(predictor, prior, task, **how)
    noisy = [shift(s.image, "noise", 4, 0, s.id) for s in samples]
    state, asked = method.init(), []
    for k, image in enumerate((noisy[0], samples[1].image, noisy[2])):
        before = state.then
        answer, state = method.step(state, Inputs(image[None], [samples[k].id]), 0)
        asked.append(answer.costs[0].nfe_backward > 0)
        assert (state.then is before) == (not asked[-1])
    assert asked == [True, False, True]


def test_the_notes_of_the_method_on_the_view_stay(world):
    prior, samples = world
    predictor = load_predictor("embedded:digits")
    task = Classification(predictor.class_names, prior.class_names)
    method = Canonical(predictor, prior, task, views=("light",), then="diffusion-classifier", then_preset="small")
    answer, _ = method.step(method.init(), Inputs(samples[0].image[None], [samples[0].id]), 0)
    assert {"margin", "stopped_after", "view_nats"} <= answer.notes[0].keys()


def test_options_of_what_answers_on_the_view(world):
    prior, _ = world
    predictor = load_predictor("embedded:digits")
    task = Classification(predictor.class_names, prior.class_names)
    given = parse_set(
        ["then=diffusion-tta", "then_preset=small", "then_options.learning_rate=0.2", "then_options.draws=2"]
    )
    method = build_method("canonical", predictor, prior, task, checked_options("canonical", given))
    alone = build_method(
        "diffusion-tta", predictor, prior, task, preset_options("diffusion-tta", "small") | {"draws": 2}
    )
    assert (method.then.optimizer.learning_rate, method.then.evaluations) == (0.2, alone.evaluations)
    for wrong, said in {
        "draw": "option of then = diffusion-tta 'draw'.*draws",
        "draws": "'draws' of then = diffusion-tta",
    }.items():
        with pytest.raises(UsageError, match=said):
            build_method("canonical", predictor, prior, task, given | {"then_options": {wrong: "many"}})
    with pytest.raises(UsageError, match="answers on one image: leave what reads a batch out"):
        build_method("canonical", predictor, prior, task, given | {"then_options": {"batch_statistics": True}})
    with pytest.raises(UsageError, match="'then_options' of canonical: numbers are finite"):
        checked_options("canonical", {"then_options": {"learning_rate": float("nan")}})
    with pytest.raises(UsageError, match=r"'then_options' of canonical: .*dictionary"):
        checked_options("canonical", {"then_options": "learning_rate=0.2"})


def test_an_autoencoder_s_latents_are_refused(tmp_path):
    prior = load_prior(str(hub_checkpoints.dit(tmp_path / "dit")))
    predictor = load_predictor("embedded:digits")
    with pytest.raises(UsageError, match="a prior of pixels"):
        Canonical(predictor, prior, Classification(prior.class_names, prior.class_names))


def test_what_is_scored_is_what_is_answered_on(world):
    """A wide picture: light is judged on all channels of it, and a view that clips one of them is none."""
    prior, _ = world
    red = torch.zeros(1, 3, 16, 32)
    red[:, 0, 4:12, 8:24] = 0.9  # grey 0.3 to the prior
    view = canonical_view(prior, red, "red", Search(families=("light",), margin=0.0, z=0.0))
    assert all(view.transformation.fits(red))


def test_maps_are_brought_back():
    predictor, prior = load_predictor("embedded:scenes-segmentation"), load_prior("embedded:scenes-segmentation")
    method = Canonical(predictor, prior, TASKS["segmentation"].joining(predictor, prior), views=("turn",))
    image = load_dataset("embedded:scenes/validation")[0].image[None]
    view = Transformation(turn=20.0)
    inner = (..., slice(20, 44), slice(20, 44))
    straight = predictor(image)
    turned = Transformation(turn=20.0)._turned(straight, view._matrix(straight.shape[-2:]))
    assert (turned.argmax(1)[inner] == straight.argmax(1)[inner]).float().mean() < 0.9
    assert (method._back(view, turned).argmax(1)[inner] == straight.argmax(1)[inner]).float().mean() > 0.95
    with pytest.raises(UsageError, match=r"not for segmentation; these are: source, .*diffusion-tta, .*diffpure, dda"):
        Canonical(predictor, prior, method.task, then="diffusion-classifier")
    answer, _ = method.step(method.init(), Inputs(image, ["scene"]), 0)
    assert answer.output.shape == predictor(image).shape


def test_depths_are_brought_back():
    predictor, prior = load_predictor("embedded:scenes-depth"), load_prior("embedded:scenes-depth")
    method = Canonical(predictor, prior, TASKS["depth"].joining(predictor, prior), views=("turn",))
    view, depth = Transformation(turn=90.0), torch.arange(64.0).expand(1, 64, 64).clone()
    turned = view.apply(depth[:, None].expand(1, 3, 64, 64))[:, 0]
    assert not torch.equal(turned, depth)
    assert torch.allclose(method._back(view, turned), depth, atol=1e-3)


def test_pixels_that_are_none(world):
    prior, samples = world
    broken = samples[0].image[None].clone()
    broken[0, 0, 3, 3] = torch.nan
    with pytest.raises(DiffcernError, match=r"NaN|finite"):
        canonical_view(prior, broken, "x", Search(families=("light",)))


def test_an_image_smaller_than_the_prior(world):
    """Is enlarged, as predictors do."""
    prior, samples = world
    small = shift(samples[0].image, "contrast", 4, 0, "x")[None, :, ::2, ::2]
    assert min(canonical_view(prior, small, "x", Search(families=("light",))).transformation.gain) > 1.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"families": ()}, "some of light, colour, .*, not none"),
        ({"families": ("warp",)}, "not warp"),
        ({"budget": 60}, "does not reach around the candidates: light, turn need 112 or more"),
        ({"draws": 3}, "draws are 4 or more"),
        ({"margin": -1.0}, "at least 0"),
        ({"low": 1.0}, r"low in \[0, 1\)"),
    ],
)
def test_what_a_search_refuses(options, message):
    with pytest.raises(UsageError, match=message):
        Search(**options)
