"""torch.optim.Adam that does not import torch.compile's compiler."""

from __future__ import annotations

import inspect

import torch
from torch.optim import Optimizer


class Adam(torch.optim.Adam):
    """torch.optim.Adam for steps outside of torch.compile; equal in all else.

    The first call of most of an optimizer's methods imports torch._dynamo, to keep it out of what is compiled. That
    takes as long as `import torch` again. Here the same methods are without that wrapper.
    """

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))
    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)
