"""One critic on a CPU: forward, and a gradient that leaves out what would add zeros."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

EPSILON = 1e-5  # LayerNorm's


class Layers(NamedTuple):
    """A critic's parameters, or their gradients; without LayerNorm no scales and offsets."""

    weights: list[Tensor]  # (inputs, outputs)
    biases: list[Tensor]  # (1, outputs)
    scales: list[Tensor]  # (1, outputs)
    offsets: list[Tensor]


def grouped(parameters: tuple[Tensor, ...], layers: int) -> Layers:
    """parameters: `layers` weights, as many biases, then scales and offsets, if any."""
    norms = (len(parameters) - 2 * layers) // 2
    bounds = (0, layers, 2 * layers, 2 * layers + norms, len(parameters))
    return Layers(*(list(parameters[start:end]) for start, end in itertools.pairwise(bounds)))


class Critic(torch.autograd.Function):
    """Values (B, N) of features (B, F) and actions (B, N, A). No second derivatives.

    The gradient leaves out rows whose value has none: samples that calibration clamps, differences at their clip, and
    in the actor's loss every critic but the least.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, actions: Tensor, layers: int, *parameters: Tensor) -> Tensor:
        """layers, parameters: as for grouped."""
        own, width = grouped(parameters, layers), features.shape[1]
        of_state = torch.addmm(own.biases[0], features, own.weights[0][:width])  # (B, H)
        rows = actions.flatten(0, 1) @ own.weights[0][width:]  # (B N, H)
        rows.view(*actions.shape[:2], -1).add_(of_state[:, None])
        ctx.norms, ctx.hidden = [], []  # of each layer: LayerNorm's input, mean and 1 / std; rows after ReLU
        for layer in range(layers - 1):
            if layer:
                rows = torch.addmm(own.biases[layer], rows, own.weights[layer])
            if own.scales:
                before, affine = rows, (own.scales[layer][0], own.offsets[layer][0])
                rows, mean, deviation = torch.native_layer_norm(before, before.shape[1:], *affine, EPSILON)
                ctx.norms.append((before, mean, deviation))
            ctx.hidden.append(rows.relu_())
        ctx.save_for_backward(features, actions, *parameters)
        return torch.addmv(own.biases[-1][0], rows, own.weights[-1][:, 0]).view(actions.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_values: Tensor) -> tuple[Tensor | None, ...]:
        features: Tensor = ctx.saved_tensors[0]
        actions: Tensor = ctx.saved_tensors[1]
        parameters: tuple[Tensor, ...] = ctx.saved_tensors[2:]
        needs_features, needs_actions, _, needs_parameters, *_ = ctx.needs_input_grad  # all parameters', or none's
        of_values = of_values.flatten()
        chosen = of_values.nonzero()[:, 0]
        every = len(chosen) == len(of_values)

        def pick(rows: Tensor) -> Tensor:
            return rows if every else rows.index_select(0, chosen)

        of_values, inputs = pick(of_values), [pick(rows) for rows in (actions.flatten(0, 1), *ctx.hidden)]
        own, width = grouped(parameters, len(inputs)), features.shape[1]
        found = Layers([], [], [], [])  # the last layer first
        if needs_parameters:
            found.weights.append((inputs[-1].T @ of_values)[:, None])
            found.biases.append(of_values.sum().view(1, 1))
        rows = torch.outer(of_values, own.weights[-1][:, 0])
        for layer in range(len(ctx.hidden) - 1, -1, -1):
            torch.ops.aten.threshold_backward.grad_input(rows, inputs[layer + 1], 0, grad_input=rows)
            if own.scales:
                before, mean, deviation = map(pick, ctx.norms[layer])
                affine, mask = (own.scales[layer][0], own.offsets[layer][0]), [True, needs_parameters, needs_parameters]
                rows, of_scale, of_offset = torch.ops.aten.native_layer_norm_backward(
                    rows, before, before.shape[1:], mean, deviation, *affine, mask
                )
                if needs_parameters:
                    found.scales.append(of_scale[None])
                    found.offsets.append(of_offset[None])
            if layer:
                if needs_parameters:
                    found.weights.append(inputs[layer].T @ rows)
                    found.biases.append(rows.sum(0, keepdim=True))
                rows = rows @ own.weights[layer].T
        of_features = of_actions = None
        if needs_actions:
            of_actions = torch.zeros_like(actions)
            of_actions.view(-1, actions.shape[-1])[chosen] = rows @ own.weights[0][width:].T
        if needs_parameters or needs_features:
            spread = (
                rows if every else rows.new_zeros(actions[..., 0].numel(), rows.shape[1]).index_copy_(0, chosen, rows)
            )
            of_state = spread.view(*actions.shape[:2], -1).sum(1)  # (B, H)
        if needs_features:
            of_features = of_state @ own.weights[0][:width].T
        if needs_parameters:
            found.weights.append(torch.cat([features.T @ of_state, inputs[0].T @ rows]))
            found.biases.append(of_state.sum(0, keepdim=True))
        if not needs_parameters:
            return of_features, of_actions, None, *[None] * len(parameters)
        return of_features, of_actions, None, *(gradient for group in found for gradient in reversed(group))
