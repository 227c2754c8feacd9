"""Adam without torch's compiler is torch's Adam."""

import copy

import pytest
import torch

from agent.calql.adam import Adam


def stepped(make, parameters, options, steps=3):
    """The parameters after so many steps, half of them by a second optimizer that has loaded the first one's state."""
    parameters = [parameter.clone().requires_grad_() for parameter in parameters]
    random = torch.Generator().manual_seed(1)
    optimizer = make(parameters, 1e-2, **options)
    for half in range(2):
        for _ in range(steps):
            optimizer.zero_grad()
            assert all(parameter.grad is None for parameter in parameters)
            sum((p * torch.randn(p.shape, generator=random)).square().sum() for p in parameters).backward()
            optimizer.step()
        if not half:
            state = copy.deepcopy(optimizer.state_dict())
            optimizer = make(parameters, 1.0, **options)
            optimizer.load_state_dict(state)
    return parameters, optimizer.state_dict()


@pytest.mark.parametrize("options", [{"fused": True}, {"weight_decay": 0.1, "decoupled_weight_decay": True}])
def test_steps_and_states_are_those_of_torch(options):
    start = [torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(())]
    (ours, own), (theirs, wanted) = (stepped(make, start, options) for make in (Adam, torch.optim.Adam))
    assert all(map(torch.equal, ours, theirs)) and not torch.equal(ours[0], start[0])
    assert own["param_groups"] == wanted["param_groups"] and own["param_groups"][0]["lr"] == 1e-2
    for number, state in wanted["state"].items():
        assert all(torch.equal(value, own["state"][number][name]) for name, value in state.items())
    assert own["state"].keys() == wanted["state"].keys() == {0, 1}
