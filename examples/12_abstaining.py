"""
When should it say that it does not know?
=========================================

The softmax of denoising errors is a probability once a temperature is fitted on held-out images. Answers below a limit
become "unsure": how many are left, and how many of those are wrong?
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

import diffcern
from diffcern.calibration import calibrated, fit, risk_coverage

predictor, prior = diffcern.load_predictor("embedded:digits"), diffcern.load_prior("embedded:digits")
model = diffcern.adapt(predictor, prior, method="diffusion-classifier")


def asked(split, count):
    data = diffcern.load_dataset(f"embedded:digits/{split}")
    images = torch.stack([diffcern.shift(data[i].image, "blur", 3, seed=0, id=data[i].id) for i in range(count)])
    return model(images).double().numpy(), np.array(data.targets[:count])


# %%
# The temperature is fitted on the validation split and judged on the test split, which it has not seen.

temperature, _ = fit(*asked("validation", 40))
logits, targets = asked("test", 80)
right = (logits.argmax(1) == targets).astype(float)
print(f"temperature {temperature:.2f}, {100 * right.mean():.0f} % right")

# %%
# Left: of answers that claim so much, how many are right (five groups of sixteen). Right: the surest answers first, and
# the share of wrong ones among them.

figure, (claims, answers) = plt.subplots(1, 2, figsize=(9, 3.4))
for name, tau, colour in (("as it is", 1.0, "#b8bcc4"), ("with the temperature", temperature, "#2166ac")):
    probabilities = calibrated(logits, tau)
    confidence = probabilities.max(1)
    bins = np.array_split(np.argsort(confidence), 5)
    claims.plot([confidence[b].mean() for b in bins], [right[b].mean() for b in bins], "o-", color=colour, label=name)
claims.plot([0, 1], [0, 1], color="#ddd", zorder=0)
claims.set(xlabel="claimed", ylabel="right", xlim=(0.2, 1.02), ylim=(0.2, 1.02))
claims.legend(fontsize=8, loc="upper left")
coverage, risk = risk_coverage(calibrated(logits, temperature).max(1), right)
answers.plot(100 * coverage, 100 * risk, color="#2166ac")
answers.set(xlabel="answered, %", ylabel="of these wrong, %")
plt.show()

# %%
# ``diffcern calibrate images HELD_OUT --prior MY_PRIOR`` keeps a temperature beside the prior, and
# ``diffcern classify photos --prior MY_PRIOR --abstain-below 0.8`` goes by it.
