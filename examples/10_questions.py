"""
Does a multimodal model see more in a purified image?
=====================================================

A small LLaVA is asked about scenes under noise, before and after DDA has purified them with a prior of such scenes
(:doc:`question answering </methods/question-answering>`). Twenty questions show how it is done and prove nothing: the
figures with their intervals are in :doc:`reproduction </reproduction>`.
"""

from textwrap import fill

import matplotlib.pyplot as plt
import torch

import diffcern
from diffcern.data import load_questions
from diffcern.guides import Guide, LowPass
from diffcern.predictors.question_answering import load_answerer
from diffcern.purifier import Purifier, Route

answerer = load_answerer("embedded:scenes-answerer")
prior = diffcern.load_prior("embedded:scenes-text")
questions = load_questions("embedded:scenes")
asked = [questions[i] for i in range(20)]
images = torch.stack([diffcern.shift(each.image, "gaussian_noise", 5, seed=0, id=each.id) for each in asked])

# %%
# The preset of DDA for questions, as an object: from t = 199 in 20 steps, the low frequencies of the given image kept.

purifier = Purifier(prior, Route(199, 20), Guide([(0.4, LowPass(4))], form="estimate"))
purified = purifier(images, [each.id for each in asked]).detach()
texts, choices = [each.question for each in asked], [each.choices for each in asked]
with torch.no_grad():
    seen = {"given": images, "purified": purified}
    answers = {name: answerer(each, texts, choices).softmax(-1) for name, each in seen.items()}
answers["both"] = answers["given"] + answers["purified"]
said = {}
for name, found in answers.items():
    said[name] = words = [each.choices[int(p.argmax())] for each, p in zip(asked, found, strict=True)]
    print(f"{name}: {sum(word == each.answer for word, each in zip(words, asked, strict=True))} of {len(asked)} right")

# %%
# Four of the questions.

figure, axes = plt.subplots(2, 4, figsize=(10, 5.4))
for k, column in enumerate(axes.T):
    for axis, name in zip(column, seen, strict=True):
        axis.imshow(seen[name][k].permute(1, 2, 0))
        axis.set_xlabel(f"says {said[name][k]}", fontsize=9)
        axis.set(xticks=[], yticks=[])
    column[0].set_title(f"{fill(texts[k], 32)}\n(truth: {asked[k].answer})", fontsize=9)
plt.show()
