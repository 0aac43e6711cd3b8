"""
How much does a race save?
==========================

Exhaustive scoring asks about every class at every draw. In a race a class leaves once it stands out as worse, and most
leave after a few draws. What is saved, and does the answer stay?
"""

import matplotlib.pyplot as plt
import torch

import diffcern

COUNT = 20
predictor = diffcern.load_predictor("embedded:digits")
prior = diffcern.load_prior("embedded:digits")
data = diffcern.load_dataset("embedded:digits")
images = torch.stack([diffcern.shift(data[i].image, "noise", 3, seed=0, id=data[i].id) for i in range(COUNT)])
targets = torch.tensor([data[i].target for i in range(COUNT)])

# %%
# The preset is a race of up to 64 draws. ``stop=""`` asks about all classes at all of them.

found = {}
for name, options in {"race": {}, "all": {"stop": "", "strategy": "stratified", "first": (0.0, 1.0)}}.items():
    model = diffcern.adapt(predictor, prior, method="diffusion-classifier", **options)
    answers = model(images).argmax(-1)
    found[name] = answers, [cost.nfe_forward for cost in model.prediction.costs]
    print(
        f"{name}: {(answers == targets).sum()} of {COUNT} right, {sum(found[name][1]) / COUNT:.0f} evaluations an image"
    )
print(f"the same answer for {(found['race'][0] == found['all'][0]).sum()} of {COUNT} images")

# %%
# Easy images end at once, hard ones take their time: the cost of each image, sorted.

figure, axis = plt.subplots(figsize=(7, 3))
right = found["race"][0] == targets
order = sorted(range(COUNT), key=lambda i: found["race"][1][i])
colours = ["#2166ac" if right[i] else "#b2182b" for i in order]
axis.bar(range(COUNT), [found["race"][1][i] for i in order], color=colours)
axis.axhline(found["all"][1][0], color="#888", linestyle="--")
axis.text(0, found["all"][1][0], "all classes, all draws", va="bottom", color="#666", fontsize=9)
axis.set(xlabel="images, by cost (red: answered wrongly)", ylabel="denoiser evaluations", xticks=[])
plt.show()
