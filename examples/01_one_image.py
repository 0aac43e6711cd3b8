"""
What happens when one image is adapted to?
==========================================

A classifier meets an image under a shift that it was not trained for. A diffusion model that knows the classes says
how well the classifier's own answer explains the image, and the classifier's weights move until it does:
:doc:`Diffusion-TTA </methods/diffusion-tta>`.
"""

import matplotlib.pyplot as plt

import diffcern

predictor = diffcern.load_predictor("embedded:digits")
prior = diffcern.load_prior("embedded:digits")
sample = diffcern.load_dataset("embedded:digits")[21]
image = diffcern.shift(sample.image, "noise", 4, seed=0, id=sample.id)[None]  # [1, 3, H, W] in [0, 1]

# %%
# ``diffcern.adapt`` gives a torch module. Each image is an episode of its own: the given predictor never changes.

model = diffcern.adapt(predictor, prior)
before = predictor(image).softmax(-1)[0].detach()
after = model(image).softmax(-1)[0]
print(f"truth {sample.target}, before {before.argmax()}, after {after.argmax()}")
print(model.prediction.costs[0])

# %%
# Before and after, and the loss whose gradient the steps follow: the prior's denoising error, told what the classifier
# says. Every step meets other noise, so that the loss need not fall at each.

figure, (picture, bars, loss) = plt.subplots(1, 3, figsize=(9, 2.8), width_ratios=(1, 2, 1.6))
picture.imshow(image[0].permute(1, 2, 0))
picture.set_title(f"a {sample.target}, in noise")
picture.axis("off")
x = range(10)
bars.bar([k - 0.2 for k in x], before, 0.4, color="#b8bcc4", label="before")
bars.bar([k + 0.2 for k in x], after, 0.4, color="#2166ac", label="after")
bars.set(xticks=x, xlabel="class", ylabel="probability")
bars.legend()
trace = model.prediction.trace[0]
loss.plot(range(1, len(trace) + 1), trace, "o-", color="#2166ac")
loss.set(xlabel="step", ylabel="denoising error", xticks=range(1, len(trace) + 1))
plt.show()
