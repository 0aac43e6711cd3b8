"""Every method without a prior that carries a state, under every protocol that carries one."""

import pickle

import pytest
import torch

from diffcern.methods import build_method
from diffcern.run.bench import Bench
from diffcern.run.protocols import PROTOCOLS
from diffcern.run.spec import parse_spec
from diffcern.run.units import units
from diffcern.types import Inputs

MOVES = {"optimizer": "adam", "learning_rate": 0.05}
RIVALS = {
    "tent": {**MOVES, "statistics": "source"},
    "eta": {**MOVES, "sure": 1.0, "alike": 1.0},
    "eata": {**MOVES, "sure": 1.0, "alike": 1.0, "source_images": "embedded:digits/train", "fisher_count": 2},
    "sar": {**MOVES, "sure": 1.0, "recovery": 0.0},
    "deyo": {**MOVES, "sure": 1.0, "drop": -1.0},
    "roid": MOVES,
    "cotta": {**MOVES, "views": 1, "keep": 0.5},
}
CARRIED = [protocol for protocol in PROTOCOLS if protocol != "episodic"]


@pytest.mark.slow
@pytest.mark.parametrize("method", RIVALS)
def test_every_protocol_carries_the_state(method, table):
    """All images are answered once; a continual stream enters its second shift with what the first left behind."""
    table["data"]["count"] = 10
    table["entries"] = {
        p: {"method": method, "protocol": p, "batch_size": 5, "options": RIVALS[method]} for p in CARRIED
    }
    bench = Bench(parse_spec(table), torch.device("cpu"))
    answers = {protocol: {} for protocol in CARRIED}
    for unit in units(bench.spec, 10):
        for record in bench.run(unit).records:
            answers[unit.entry][record.shift, record.id] = record.probabilities
    assert all(len(found) == 20 for found in answers.values())
    reset, continual, mixed, correlated = (
        answers[protocol] for protocol in ("reset-per-shift", "continual", "mixed", "correlated")
    )
    for key, probabilities in reset.items():
        if key[0] == "clean":
            assert probabilities == continual[key]
    assert any(probabilities != continual[key] for key, probabilities in reset.items() if key[0] == "noise")
    assert mixed != continual
    assert correlated != reset


@pytest.mark.parametrize("method", RIVALS)
def test_a_state_can_be_put_away_and_gone_on_with(method, predictor, inputs):
    built = build_method(method, predictor, None, None, RIVALS[method])
    halves = [Inputs(inputs.images[k : k + 6], inputs.ids[k : k + 6]) for k in (0, 6)]
    _, state = built.step(built.init(), halves[0], 0)
    other, kept = pickle.loads(pickle.dumps((built, state)))
    assert torch.equal(built.step(state, halves[1], 0)[0].output, other.step(kept, halves[1], 0)[0].output)
    assert not torch.equal(built.step(built.init(), halves[1], 0)[0].output, built.step(state, halves[1], 0)[0].output)
