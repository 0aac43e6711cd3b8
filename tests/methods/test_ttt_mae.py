"""TTT-MAE against its equation, on a tiny autoencoder."""

import copy

import pytest
import torch

from diffcern.adapted import AdaptedModel
from diffcern.errors import UsageError
from diffcern.methods import build_method
from diffcern.predictors.mae import MaeConfig, mae_predictor
from diffcern.rng import generator

OPTIONS = {"steps": 2, "masks": 6, "learning_rate": 0.1}


@pytest.fixture
def autoencoder():
    torch.manual_seed(0)
    sizes = {"width": 16, "depth": 1, "heads": 2, "patch": 2, "decoder_depth": 1}
    return mae_predictor(MaeConfig(8, tuple("0123"), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), **sizes))


def ttt(predictor, **options):
    return build_method("ttt-mae", predictor, None, None, {**OPTIONS, **options})


def by_hand(predictor, image, noise):
    """The loss as published: encode what is visible, fill with mask tokens, compare the masked patches."""
    model, losses = predictor.model, []
    patches = image[0].unfold(1, 2, 2).unfold(2, 2, 2).permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)  # [16, 12]
    target = (patches - patches.mean(1, keepdim=True)) / (patches.var(1, keepdim=True) + 1e-6).sqrt()
    encoder, decoder = model.reconstruction.encoder, model.reconstruction.decoder
    for row in noise:
        visible = row.argsort()[:4]  # a quarter of 16
        tokens = decoder.embed(encoder(image, visible[None]))
        full = decoder.masked.repeat(1, 16, 1).index_copy(1, visible, tokens[:, 1:]) + decoder.positions
        estimate = decoder.pixels(decoder.blocks(torch.cat([tokens[:, :1], full], 1)))[0, 1:]
        errors = (estimate - target).square().mean(1)
        losses.append(torch.stack([errors[i] for i in range(16) if i not in visible.tolist()]).mean())
    return torch.stack(losses).mean()


def test_a_step_is_the_equations_gradient(autoencoder, inputs):
    lr, image = 0.1, inputs[:1]
    method = ttt(autoencoder, steps=1, learning_rate=lr, rows=4)
    prediction, state = method.step(method.init(), image, 7)
    reference = copy.deepcopy(autoencoder)
    noise = torch.rand(6, 16, generator=generator(7, "mae", image.ids[0], 0))
    loss = by_hand(reference, reference.prepare(image.images), noise)
    assert prediction.trace[0] == pytest.approx([loss.item()], rel=1e-5)
    encoder = reference.model.reconstruction.encoder
    parameters = list(encoder.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        for theta, g, adapted in zip(parameters, gradients, state.parameters.values(), strict=True):
            theta -= lr * g
            assert torch.allclose(adapted, theta, atol=1e-6 + 1e-4 * lr * g.abs().max())
    assert torch.allclose(prediction.output, reference(image.images), atol=1e-4)


def test_only_the_encoder_is_adapted_and_the_users_model_is_not(autoencoder, inputs):
    before = copy.deepcopy(autoencoder.state_dict())
    method = ttt(autoencoder)
    _, state = method.step(method.init(), inputs[:1], 0)
    encoder = [name for name, _ in autoencoder.named_parameters() if ".encoder." in name]
    assert list(state.parameters) == encoder
    assert not any(torch.equal(before[name], value) for name, value in state.parameters.items())
    assert all(torch.equal(before[name], value) for name, value in autoencoder.state_dict().items())


def test_answers_belong_to_the_image(autoencoder, inputs):
    model = AdaptedModel(ttt(autoencoder))
    together = model(inputs.images[:3], inputs.ids[:3])
    assert torch.equal(model(inputs.images[2:3], inputs.ids[2:3]), together[2:])
    assert not torch.equal(model(inputs.images[2:3], ["another"]), together[2:])


def test_rows_change_rounding_only(autoencoder, inputs):
    whole, pieces = (ttt(autoencoder, rows=rows).step(ttt(autoencoder).init(), inputs[:1], 0) for rows in (128, 1))
    assert torch.allclose(whole[0].output, pieces[0].output, atol=1e-4)


def test_several_images_share_a_step_on_their_mean_loss(autoencoder, inputs):
    method = ttt(autoencoder, steps=1)
    states = [method.step(method.init(), piece, 0)[1].parameters for piece in (inputs[:1], inputs[1:2], inputs[:2])]
    for one, other, both in zip(*(state.values() for state in states), strict=True):
        assert torch.allclose((one + other) / 2, both, atol=1e-5)


def test_steps_lower_the_loss(autoencoder, inputs):
    method = ttt(autoencoder, steps=20, masks=64, learning_rate=0.5)
    losses = method.step(method.init(), inputs[:1], 0)[0].trace[0]
    assert sum(losses[-5:]) < 0.99 * sum(losses[:5])  # a random decoder, frozen, cannot do much better


def test_another_predictor_is_refused(predictor):
    with pytest.raises(UsageError, match="diffcern train mae"):
        ttt(predictor)


@pytest.mark.parametrize(("sizes", "message"), [({"patch": 3}, "patch 3"), ({"width": 20}, "multiple of 8")])
def test_sizes_that_do_not_divide_are_refused(sizes, message):
    with pytest.raises(UsageError, match=message):
        mae_predictor(MaeConfig(8, ("a", "b"), (0.5,) * 3, (0.5,) * 3, **sizes))
