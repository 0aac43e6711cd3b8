"""What hides a part of a picture: found where the prior expects something else, painted, and asked about."""

import math

import pytest
import torch

from diffcern.canonical import Search, canonical_view
from diffcern.data import load_dataset
from diffcern.data.shifts import shift
from diffcern.errors import UsageError
from diffcern.evidence import Evidence
from diffcern.hidden import GROUNDS, Hidden, Mask, suspects
from diffcern.methods.canonical import Canonical
from diffcern.noise_levels import noise_at, time_of
from diffcern.predictors import load_predictor
from diffcern.priors import GaussianMixturePrior, load_prior
from diffcern.tasks import Classification
from diffcern.transformations import IDENTITY
from diffcern.types import Inputs
from diffcern.weighing import Candidate, Scale

COUNT = 8
SEARCH = Search(families=(), budget=120, inpaint=True)


@pytest.fixture(scope="module")
def world():
    data = load_dataset("embedded:digits/validation")
    return load_prior("embedded:digits"), [data[k] for k in range(0, 10 * COUNT, 10)]


def found_in(world, what, severity=4, search=SEARCH):
    prior, samples = world
    images = [shift(s.image, what, severity, 0, s.id)[None] if severity else s.image[None] for s in samples]
    return [canonical_view(prior, image, s.id, search) for s, image in zip(samples, images, strict=True)]


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_hiding_is_weighed_as_the_closed_form_says(noise):
    """A prior that is sure of what is behind: hidden numbers count as their own Gaussian, not as the prior's."""
    rng = torch.Generator().manual_seed(0)
    s, mean = 0.02, 0.2 * torch.randn(1, 3, 8, 8, generator=rng)
    prior = GaussianMixturePrior(mean, std=s)
    picture = mean.clone()
    picture[..., 2:5, 3:6] = 0.4 + 0.3 * torch.randn(1, 3, 3, 3, generator=rng)
    cover = torch.zeros_like(mean)
    cover[..., 2:5, 3:6] = 1
    inside = picture[cover > 0].view(3, 9)
    counts, variances = torch.full((3,), 9.0), inside.var(1, correction=0)
    hidden = Hidden(Mask(cover, 2.0), mean, noise, counts, variances)
    scale = Scale(prior, (picture + 1) / 2, lambda image: image, "a", 0, Search())
    scale.noise = noise
    level = max(noise_at(prior, 0.3), 1.5 * noise)
    n = noise_at(prior, time_of(prior, level))
    drawn = scale.draws(4000)
    candidates = [Candidate(picture, 1.0, noise), Candidate(mean, 1.0, noise, hidden=hidden)]
    both = scale.compare(candidates, drawn, level)
    found = Evidence(both[1:] - both[:1], drawn.timesteps)
    laid, apart = n**2 - noise**2, (inside - mean[cover > 0].view(3, 9)).square().sum().item()
    by_prior = -(27 * math.log(s**2 + n**2) + (apart + 27 * laid) / (s**2 + n**2)) / 2
    by_cover = -sum(9 * (math.log(v + laid) + 1) for v in variances.tolist()) / 2 - 2.0
    wanted = by_cover - by_prior
    assert abs(found.nats.item() - wanted) < 5 * found.standard_error.item() + 0.02 * abs(wanted)


def test_a_patch_is_found_where_it_is(world):
    """As dark as the ground that it lies on: only what the prior misses tells."""
    prior, samples = world
    right = 0
    for sample, view in zip(samples, found_in(world, "occlusion"), strict=True):
        if view.hidden is None:
            continue
        cover = shift(torch.ones_like(sample.image), "occlusion", 4, 0, sample.id)[:1] == 0
        right += (view.hidden.mask.hidden[0].bool() & cover).sum() >= 0.6 * cover.sum()
        assert view.hidden_nats > 3
        visible = view.hidden.mask.hidden == 0
        own = prior.latents(shift(sample.image, "occlusion", 4, 0, sample.id)[None])
        assert torch.equal(view.hidden.latent[visible], own[visible])
    assert right >= COUNT - 3


def test_nothing_hides_a_clean_picture(world):
    assert all(view.hidden is None for view in found_in(world, "", 0))


def test_specks_are_found_and_take_their_noise_with_them(world):
    found = [view for view in found_in(world, "pepper", 2) if view.hidden]
    assert len(found) >= COUNT // 2
    assert all(view.left == 0 for view in found)


def test_a_ground_is_found_and_what_is_lighter_is_stretched(world):
    found = [view.hidden for view in found_in(world, "clutter") if view.hidden]
    assert len(found) >= COUNT - 2
    assert all(hidden.mask.ground in GROUNDS for hidden in found)
    for hidden in found:
        assert hidden.lifted(torch.tensor([0.0, hidden.mask.ground, 1.0])).tolist() == [0.0, 0.0, 1.0]


def test_noise_that_was_clipped_at_black_is_no_ground(world):
    prior, samples = world
    for sample in samples:
        latent = prior.latents(shift(sample.image, "noise", 4, 0, sample.id)[None])
        assert not any(hidden.mask.ground for hidden in suspects(prior, latent, sample.id, 0)[0])


def test_what_is_visible_stays_as_it_is(world):
    """The predictor is shown its own pixels, with paint where something hid them."""
    prior, samples = world
    predictor = load_predictor("embedded:digits")
    task = Classification(predictor.class_names, prior.class_names)
    method = Canonical(predictor, prior, task, views=("light",), inpaint=True, budget=160)
    images = torch.stack([shift(s.image, "occlusion", 4, 0, s.id) for s in samples])
    ids = [s.id for s in samples]
    answer, _ = method.step(method.init(), Inputs(images, ids), 0)
    targets = torch.tensor([s.target for s in samples])
    assert (answer.output.argmax(1) == targets).sum() >= COUNT - 1
    shares = [note.get("view_hidden", 0.0) for note in answer.notes]
    assert max(shares) > 0.05
    worst = shares.index(max(shares))
    image = images[worst][None]
    view = canonical_view(prior, image, ids[worst], method.search, looked_at=predictor.view)
    assert view.transformation == IDENTITY
    assert view.hidden
    assert not view.hidden.mask.ground
    assert not view.left
    seen = method._cleaned(image, view, [ids[worst]], 0)
    same = view.hidden.mask.hidden.expand_as(image) == 0
    assert torch.equal(seen[same], image[same])


def test_a_stream_asks_every_frame_what_hides_it(world):
    prior, samples = world
    search = Search(families=("light",), budget=160, inpaint=True)
    occluded = [shift(s.image, "occlusion", 4, 0, s.id)[None] for s in samples]
    first = next(view for view in found_in(world, "occlusion", search=search) if view.hidden)
    clean = canonical_view(prior, samples[1].image[None], samples[1].id, search, known=first)
    assert clean.hidden is None
    again = [canonical_view(prior, x, s.id, search, known=first) for x, s in zip(occluded, samples, strict=True)]
    assert sum(view.hidden is not None and view.hidden is not first.hidden for view in again) >= COUNT // 2


def test_a_stream_leaves_what_it_takes_to_ask(world, monkeypatch):
    """At the smallest budget: whether the view of the frame before stays is no reason not to ask."""
    prior, samples = world
    search, asked, known = Search(budget=156, inpaint=True), [], None
    monkeypatch.setattr("diffcern.weighing.suspects", lambda *args: (asked.append(1), suspects(*args))[1])
    for sample in samples:
        frame = shift(sample.image, "rotation", 4, 0, sample.id)[None]
        known = canonical_view(prior, frame, sample.id, search, known=known)
        assert known.evaluations <= 2 * search.budget
    assert len(asked) == len(samples)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jacobian": False, "budget": 160}, "give inpaint=false with jacobian=false"),
        ({"budget": 120}, "light, turn, inpaint need 156 or more"),
    ],
)
def test_searches_that_cannot_ask(options, message):
    with pytest.raises(UsageError, match=message):
        Search(inpaint=True, **options)
