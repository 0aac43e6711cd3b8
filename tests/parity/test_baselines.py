"""TENT, BN-adapt, MEMO and TTT-MAE: several batches of an online stream, by torch's own layers and optimisers."""

import copy

import pytest
import torch
from torch import nn

from diffcern.methods import build_method
from diffcern.methods.memo import augmix
from diffcern.predictors.mae import MaeConfig, mae_predictor
from diffcern.rng import generator
from diffcern.types import Inputs

from .conftest import NAMES, SIDE

TORCH = "torch's own layers and optimiser"


def batches(count=3, size=6):
    images = torch.rand(count * size, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    for k in range(count):
        part = slice(k * size, (k + 1) * size)
        yield Inputs(images[part], [f"{i}" for i in range(part.start, part.stop)])


class Mixed(nn.Module):
    """BatchNorm with count / (count + n) of the training statistics and the rest the batch's, unbiased."""

    def __init__(self, layer, count, constant):
        super().__init__()
        self.layer, self.count, self.constant = layer, count, constant

    def forward(self, x):
        keep = self.count(len(x)) if callable(self.count) else self.count / (self.count + len(x))
        with torch.set_grad_enabled(not self.constant):
            mean = keep * self.layer.running_mean + (1 - keep) * x.mean((0, 2, 3))
            variance = keep * self.layer.running_var + (1 - keep) * x.var((0, 2, 3))
        shape = (1, -1, 1, 1)
        normal = (x - mean.view(shape)) / (variance.view(shape) + self.layer.eps).sqrt()
        return normal * self.layer.weight.view(shape) + self.layer.bias.view(shape)


def mixed(model, count, constant=True):
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, Mixed(child, count, constant))
    return model


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_tent(optimizer, classifier, reference, parity):
    """Batch statistics, entropy over the affine parameters; the answer is that before the step. SGD is Nesterov's."""
    method = build_method("tent", classifier, None, None, {"optimizer": optimizer, "learning_rate": 0.01, "steps": 2})
    reference.train()
    affine = [p for m in reference.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
    options = {} if optimizer == "adam" else {"momentum": 0.9, "nesterov": True}
    torchs = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer](affine, 0.01, **options)
    state, answers, expected = method.init(), [], []
    for batch in batches():
        prediction, state = method.step(state, batch, 0)
        answers.append(prediction.output)
        for _ in range(2):
            logits = reference(batch.images)
            torchs.zero_grad()
            (-(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()).backward()
            torchs.step()
        expected.append(logits.detach())
    parity(
        f"TENT, {optimizer}", "answers of 3 batches, 2 steps each", TORCH, torch.cat(answers), torch.cat(expected), 1e-4
    )


@pytest.mark.parametrize("count", [0.0, 16.0])
def test_bn_adapt(count, classifier, parity):
    method = build_method("bn-adapt", classifier, None, None, {"source_count": count})
    network = mixed(classifier, count) if count else copy.deepcopy(classifier).train()
    for batch in batches(1):
        with torch.no_grad():
            expected = network(batch.images)
        ours = method.step(None, batch, 0)[0].output
        against = "the mixture with the unbiased variance" if count else "torch's BatchNorm in training mode"
        parity("BN-adapt", f"answers, {count:.0f} source images", against, ours, expected)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_memo(optimizer, classifier, reference, parity):
    """Three images one after the other, online: one step each on 16/17 mixed statistics without a gradient."""
    rate = {"sgd": 0.05, "adamw": 1e-3}[optimizer]
    method = build_method("memo", classifier, None, None, {"views": 4, "optimizer": optimizer, "learning_rate": rate})
    network = mixed(reference, lambda n: 16 / 17)
    torchs = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[optimizer](network.parameters(), rate)
    state, answers, expected = method.init(), [], []
    for batch in batches(3, 1):
        prediction, state = method.step(state, batch, 7)
        answers.append(prediction.output)
        views = augmix(batch.images[0], 4, 1, generator(7, "memo", batch.ids[0]), "resized")
        m = network(views).softmax(-1).mean(0)
        torchs.zero_grad()
        (-(m * m.log()).sum()).backward()
        torchs.step()
        with torch.no_grad():
            expected.append(network(batch.images))
    parity(
        f"MEMO, {optimizer}", "answers of 3 images in a stream", TORCH, torch.cat(answers), torch.cat(expected), 1e-4
    )


def test_ttt_mae(parity):
    """Two steps on two images: the mean of their losses over random masks moves the encoder alone."""
    torch.manual_seed(0)
    sizes = {"width": 16, "depth": 1, "heads": 2, "patch": 2, "decoder_depth": 1}
    autoencoder = mae_predictor(MaeConfig(SIDE, NAMES, (0.5,) * 3, (0.25,) * 3, **sizes))
    method = build_method(
        "ttt-mae", autoencoder, None, None, {"steps": 2, "masks": 4, "learning_rate": 0.05, "rows": 3}
    )
    (batch,) = batches(1, 2)
    prediction, state = method.step(method.init(), batch, 7)
    network = copy.deepcopy(autoencoder).requires_grad_(True)
    encoder = network.model.reconstruction.encoder
    torchs = torch.optim.SGD(encoder.parameters(), 0.05, momentum=0.9)
    images = network.prepare(batch.images).detach()
    for step in range(2):
        loss = 0.0
        for image, id in zip(images, batch.ids, strict=True):
            noise = torch.rand(4, 16, generator=generator(7, "mae", id, step))
            loss = loss + masked_loss(network.model.reconstruction, image[None], noise) / 2
        torchs.zero_grad()
        loss.backward()
        torchs.step()
    ours = {name.rpartition("encoder.")[2]: value for name, value in state.parameters.items()}
    before = {name: p.detach() for name, p in autoencoder.model.reconstruction.encoder.named_parameters()}
    ours = {name: value - before[name] for name, value in ours.items()}
    expected = {name: value.detach() - before[name] for name, value in encoder.named_parameters()}
    parity("TTT-MAE", "the encoder's weights after 2 steps", "loops over masks and patches", ours, expected, 1e-4)
    with torch.no_grad():
        parity(
            "TTT-MAE",
            "answers of 2 images",
            "loops over masks and patches",
            prediction.output,
            network(batch.images),
            1e-4,
        )


def masked_loss(reconstruction, image, noise):
    """Encode the visible quarter, fill with mask tokens, compare the masked patches, by their own moments."""
    patches = image[0].unfold(1, 2, 2).unfold(2, 2, 2).permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
    target = (patches - patches.mean(1, keepdim=True)) / (patches.var(1, keepdim=True) + 1e-6).sqrt()
    decoder, losses = reconstruction.decoder, []
    for row in noise:
        visible = row.argsort()[:4]
        tokens = decoder.embed(reconstruction.encoder(image, visible[None]))
        full = decoder.masked.repeat(1, 16, 1).index_copy(1, visible, tokens[:, 1:]) + decoder.positions
        estimate = decoder.pixels(decoder.blocks(torch.cat([tokens[:, :1], full], 1)))[0, 1:]
        errors = (estimate - target).square().mean(1)
        losses.append(errors[[i for i in range(16) if i not in visible.tolist()]].mean())
    return torch.stack(losses).mean()
