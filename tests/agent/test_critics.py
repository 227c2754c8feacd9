"""Critics one by one, as on a CPU, against the same critics in plain autograd, as when compiled or on a GPU."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from agent import critics as module
from agent.critic import EPSILON, Critic, grouped


def gradients(critics, loss, members=None, frozen=False):
    """Values, then what loss(values) gives features, actions and, unless frozen, the parameters."""
    g = torch.Generator().manual_seed(1)
    inputs = [torch.randn(5, 6, generator=g), torch.rand(5, 7, 2, generator=g)]
    inputs = [value.to(critics.weights[0].dtype).requires_grad_() for value in inputs]
    values = critics(*inputs, members, frozen)
    return values, *torch.autograd.grad(loss(values), [*inputs, *([] if frozen else critics.parameters())])


LOSSES = {
    "every row": lambda q: q.square().sum(),
    "half of the rows": lambda q: torch.maximum(q, q.detach().median()).square().sum(),
    "the least critic": lambda q: q.amin(0).sum(),
    "no row": lambda q: 0 * q.sum(),
}


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("arguments", [(), (torch.tensor([2, 0]),), (None, True)], ids=["all", "two", "frozen"])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_gradients_are_those_of_plain_autograd(critics, loss, arguments, dtype, tolerance, monkeypatch):
    critics.to(dtype)
    own = gradients(critics, loss, *arguments)
    monkeypatch.setattr(module, "one_by_one", lambda features: False)
    for mine, plain in zip(own, gradients(critics, loss, *arguments), strict=True):
        assert (mine - plain).abs().max() <= tolerance * max(1, plain.abs().max())


def by_autograd(features, actions, layers, *parameters):
    """Critic's forward, its operations in its order, for autograd."""
    own, width = grouped(parameters, layers), features.shape[1]
    of_state = torch.addmm(own.biases[0], features, own.weights[0][:width])
    of_action = actions.flatten(0, 1) @ own.weights[0][width:]
    rows = (of_action.view(*actions.shape[:2], -1) + of_state[:, None]).flatten(0, 1)
    for layer in range(layers - 1):
        if layer:
            rows = torch.addmm(own.biases[layer], rows, own.weights[layer])
        if own.scales:
            rows = F.layer_norm(rows, rows.shape[1:], own.scales[layer][0], own.offsets[layer][0], EPSILON)
        rows = rows.relu()
    return torch.addmv(own.biases[-1][0], rows, own.weights[-1][:, 0]).view(actions.shape[:2])


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_no_row_is_left_out_gradients_are_autograds_to_the_last_bit(critics, dtype):
    """Of the same operations. (The plain path multiplies all critics at once: another order of sums.)"""
    g = torch.Generator().manual_seed(1)
    groups = (critics.weights, critics.biases, critics.scales, critics.offsets)
    own = [parameter[0].detach() for group in groups for parameter in group]
    inputs = [torch.randn(16, 6, generator=g), torch.rand(16, 7, 2, generator=g), *own]
    features, actions, *own = (value.to(dtype).requires_grad_() for value in inputs)
    found = []
    for critic in (Critic.apply, by_autograd):
        values = critic(features, actions, len(critics.weights), *own)
        assert values.count_nonzero() == values.numel()
        found.append([values, *torch.autograd.grad(values.square().sum(), [features, actions, *own])])
    for mine, plain in zip(*found, strict=True):
        assert torch.equal(mine, plain)


@pytest.mark.parametrize("layer_norm", [True, False])
def test_rows_without_gradient_cost_no_products(critics):
    features, actions = torch.randn(50, 6), torch.rand(50, 7, 2)
    costs = []
    for mask in (torch.ones(4, 50, 7), (torch.arange(50) % 2).float()[:, None]):
        loss = (critics(features, actions) * mask).sum()
        with FlopCounterMode(display=False) as counter:
            loss.backward()
        costs.append(counter.get_total_flops())
    assert 0.4 < costs[1] / costs[0] < 0.6


@pytest.mark.parametrize("layer_norm", [False])
def test_nan_gradients_are_no_zeros(critics):
    values = critics(torch.randn(5, 6), torch.rand(5, 7, 2))
    found = torch.autograd.grad(values.sum() * torch.nan, list(critics.parameters()))
    assert all(gradient.isnan().any() for gradient in found)
