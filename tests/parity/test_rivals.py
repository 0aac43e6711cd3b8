"""ETA, EATA, SAR, DeYO, ROID and CoTTA: three batches of an online stream, image by image as the papers write them."""

import copy
import math

import pytest
import torch
from torch import nn

from diffcern.data import load_dataset, subset
from diffcern.methods import build_method
from diffcern.methods.augmentations import augmented
from diffcern.rng import generator

from .conftest import NAMES
from .test_baselines import batches

LOOPS = "loops over images, torch's own layers and optimiser"
RATE = 0.02


def entropy(p):
    return -sum(p[k] * p[k].log() for k in range(len(p)))


def affine(network):
    return [p for m in network.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]


def answers(method, seed=0):
    state, found = method.init(), []
    for batch in batches():
        prediction, state = method.step(state, batch, seed)
        found.append(prediction.output.softmax(1))
    return torch.cat(found), state


@pytest.mark.parametrize("source_images", ["", "embedded:digits/train"])
def test_eata(source_images, classifier, reference, parity):
    """What is sure and not alike, by exp(E0 - E); with images of the source a pull by their squared gradients."""
    sure, alike, beta = 0.991, 0.993, 30.0
    options = {"sure": sure, "alike": alike, "optimizer": "adam", "learning_rate": RATE}
    more = {"source_images": source_images, "fisher_count": 5, "beta": beta} if source_images else {}
    ours, _ = answers(build_method("eata" if more else "eta", classifier, None, None, {**options, **more}))
    weights = affine(reference)
    source, matter = [w.detach().clone() for w in weights], [torch.zeros_like(w) for w in weights]
    if more:
        chosen = subset(load_dataset(source_images), 5, 0)
        for k in range(5):
            logits = reference.eval()(chosen[k].image[None])
            loss = nn.functional.cross_entropy(logits, logits.argmax(1))
            for square, g in zip(matter, torch.autograd.grad(loss, weights), strict=True):
                square += g**2 / 5
    reference.train()
    torchs, mean, expected, left_out = torch.optim.Adam(weights, RATE), None, [], 0
    for batch in batches():
        p = reference(batch.images).softmax(1)
        expected.append(p.detach())
        losses, seen = [], []
        for row in p:
            e, e0 = entropy(row), sure * math.log(len(NAMES))
            old = mean is not None and (row @ mean / (row.norm() * mean.norm())) >= alike
            if e >= e0 or old:
                left_out += 1
                continue
            losses.append((e0 - e.detach()).exp() * e)
            seen.append(row.detach())
        if not losses:
            continue
        loss = sum(losses) / len(losses)
        for w, s, f in zip(weights, source, matter, strict=True):
            loss = loss + beta * (f * (w - s) ** 2).sum()
        torchs.zero_grad()
        loss.backward()
        torchs.step()
        seen = torch.stack(seen).mean(0)
        mean = seen if mean is None else 0.9 * mean + 0.1 * seen
    assert 3 < left_out < 15, "the filters must leave some out"
    parity("EATA" if more else "ETA", "answers of 3 batches", LOOPS, ours, torch.cat(expected), 1e-4)


def test_sar(classifier, reference, parity):
    """Two gradients for a step, the second uphill; a layer stays; the weights come back when e_m is low."""
    sure, rho = 0.985, 0.3
    parts = [n for n, m in reference.named_modules() if isinstance(m, nn.BatchNorm2d)]
    frozen = (parts[-1].removeprefix("model."),)
    free = [p for n, p in reference.named_parameters() if n.rpartition(".")[0] in parts[:-1]]
    options = {"sure": sure, "rho": rho, "frozen": frozen, "optimizer": "sgd", "learning_rate": 0.2}
    reference.train()
    source, e_m, expected, losses_seen = [w.detach().clone() for w in free], None, [], []
    torchs = torch.optim.SGD(free, 0.2, momentum=0.9)
    recovery = 1.5755  # above the moving average of the first batch only
    for batch in batches():
        p = reference(batch.images).softmax(1)
        expected.append(p.detach())
        chosen = [b for b in range(6) if entropy(p[b]) < sure * math.log(len(NAMES))]
        g = torch.autograd.grad(sum(entropy(p[b]) for b in chosen) / len(chosen), free)
        length = math.sqrt(sum((part**2).sum().item() for part in g))
        before = [w.detach().clone() for w in free]
        with torch.no_grad():
            for w, part in zip(free, g, strict=True):
                w += rho * part / length
        p = reference(batch.images).softmax(1)
        loss = sum(entropy(p[b]) for b in chosen) / len(chosen)
        torchs.zero_grad()
        loss.backward()
        with torch.no_grad():
            for w, b in zip(free, before, strict=True):
                w.copy_(b)
        torchs.step()
        e_m = loss.item() if e_m is None else 0.9 * e_m + 0.1 * loss.item()
        losses_seen.append(e_m)
        if e_m < recovery:
            with torch.no_grad():
                for w, s in zip(free, source, strict=True):
                    w.copy_(s)
            torchs = torch.optim.SGD(free, 0.2, momentum=0.9)
    assert losses_seen[0] < recovery < losses_seen[2]
    ours, state = answers(build_method("sar", classifier, None, None, {**options, "recovery": recovery}))
    parity("SAR", "answers of 3 batches", LOOPS, ours, torch.cat(expected), 1e-4)
    parity("SAR", "e_m after 3 batches", LOOPS, state.loss, e_m, 1e-5)


def test_deyo(classifier, reference, parity):
    """What loses its answer when patches are shuffled, weighted by that and by the entropy."""
    sure, centre, drop = 0.99, 0.9, 0.0
    options = {"sure": sure, "centre": centre, "drop": drop, "optimizer": "adam", "learning_rate": RATE}
    ours, _ = answers(build_method("deyo", classifier, None, None, options), seed=5)
    weights, largest = affine(reference.train()), math.log(len(NAMES))
    torchs, expected, left_out = torch.optim.Adam(weights, RATE), [], 0
    for batch in batches():
        mixed = torch.empty_like(batch.images)
        for b, id in enumerate(batch.ids):
            order = torch.randperm(16, generator=generator(5, "deyo", id)).tolist()
            for place, taken in enumerate(order):  # 2 x 2 pixels each
                (i, j), (k, l) = divmod(place, 4), divmod(taken, 4)
                patch = batch.images[b, :, 2 * k : 2 * k + 2, 2 * l : 2 * l + 2]
                mixed[b, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = patch
        p, without = reference(batch.images).softmax(1), reference(mixed).softmax(1).detach()
        expected.append(p.detach())
        losses = []
        for row, other in zip(p, without, strict=True):
            e, y = entropy(row), row.argmax()
            plpd = (row[y] - other[y]).detach()
            if e < sure * largest and plpd > drop:
                losses.append(((centre * largest - e.detach()).exp() + 1 / (-plpd).exp()) * e)
        left_out += 6 - len(losses)
        torchs.zero_grad()
        (sum(losses) / len(losses)).backward()
        torchs.step()
    assert 3 < left_out < 15
    parity("DeYO", "answers of 3 batches", LOOPS, ours, torch.cat(expected), 1e-4)


def test_roid(classifier, reference, parity):
    """Likelihood ratios and consistency, weighted; the source's weights mixed in; the prior corrected."""
    options = {"optimizer": "adam", "learning_rate": RATE, "keep": 0.9}
    ours, state = answers(build_method("roid", classifier, None, None, options), seed=5)
    weights = affine(reference.train())
    source = [w.detach().clone() for w in weights]
    torchs, mean, expected = torch.optim.Adam(weights, RATE), torch.full((5,), 1 / 5), []
    for batch in batches():
        views = [augmented(x, 1, generator(5, "roid", id)) for x, id in zip(batch.images, batch.ids, strict=True)]
        p, q = reference(batch.images).softmax(1), reference(torch.cat(views)).softmax(1)
        unusual = torch.stack([1 - row @ mean / (row.norm() * mean.norm()) for row in p.detach()])
        sure = torch.stack([-entropy(row) for row in p.detach()])
        unusual, sure = ((u - u.min()) / (u.max() - u.min()) for u in (unusual, sure))
        loss = 0.0
        for b in range(6):
            if unusual[b] < unusual.mean():
                continue
            ratio = -sum(p[b, k] * (p[b, k] / (p[b].sum() - p[b, k])).log() for k in range(5))
            both = -0.5 * sum(p[b, k] * q[b, k].log() + q[b, k] * p[b, k].log() for k in range(5))
            loss = loss + (unusual[b] * sure[b] * 3).exp() * (ratio + both) / 6
        torchs.zero_grad()
        loss.backward()
        torchs.step()
        with torch.no_grad():
            for w, s in zip(weights, source, strict=True):
                w.copy_(0.9 * w + 0.1 * s)
        now = p.detach().mean(0)
        mean = 0.9 * mean + 0.1 * now
        smooth = max(1 / 6, 1 / 5) / now.max()
        answer = p.detach() * (now + smooth) / (1 + 5 * smooth)
        expected.append(answer / answer.sum(1, keepdim=True))
    parity("ROID", "answers of 3 batches", LOOPS, ours, torch.cat(expected), 1e-4)
    parity("ROID", "moving average of the answers", LOOPS, state.mean, mean)


def test_cotta(classifier, reference, parity):
    """The teacher's answers, averaged over views where the source is unsure; all weights; some given back."""
    threshold = 0.245
    options = {"views": 3, "threshold": threshold, "keep": 0.9, "restore": 0.2, "learning_rate": RATE}
    ours, state = answers(build_method("cotta", classifier, None, None, options), seed=5)
    student, teacher, anchor = reference.train(), copy.deepcopy(reference).train(), copy.deepcopy(reference).train()
    source = {name: w.detach().clone() for name, w in student.named_parameters()}
    torchs, expected, unsure = torch.optim.Adam(student.parameters(), RATE), [], 0
    for step, batch in enumerate(batches()):
        with torch.no_grad():
            y, sure = teacher(batch.images).softmax(1), anchor(batch.images).softmax(1).max(1).values
            views = [augmented(x, 3, generator(5, "cotta", i)) for x, i in zip(batch.images, batch.ids, strict=True)]
            mean = sum(teacher(torch.stack([view[n] for view in views])).softmax(1) for n in range(3)) / 3
        for b in range(6):
            if sure[b] < threshold:
                y[b], unsure = mean[b], unsure + 1
        expected.append(y)
        torchs.zero_grad()
        (-(y * student(batch.images).log_softmax(1)).sum(1).mean()).backward()
        torchs.step()
        rng = generator(5, "cotta-restore", step, *batch.ids)
        with torch.no_grad():
            for w, t in zip(student.parameters(), teacher.parameters(), strict=True):
                t.copy_(0.9 * t + 0.1 * w)
            for name, w in student.named_parameters():
                back = torch.rand(w.shape, generator=rng) < 0.2
                w[back] = source[name][back]
    assert 3 < unsure < 15
    parity("CoTTA", "answers of 3 batches", LOOPS, ours, torch.cat(expected), 1e-4)
    moved = {name: w - source[name] for name, w in state.teacher.items()}
    theirs = {name: w.detach() - source[name] for name, w in teacher.named_parameters()}
    parity("CoTTA", "the teacher's weights", LOOPS, moved, theirs, 1e-3)
