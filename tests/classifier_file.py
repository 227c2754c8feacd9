"""Files of success classifiers that always give the same answer."""

import torch

from envs.reward_classifier import SuccessClassifier, network
from tools.train_reward.training import save

CAMERA = {"top": (24, 24, 3)}


def write(path, answer=0.0, cameras=CAMERA, **rule):
    """A classifier's file; `answer` is the logit that it gives whatever it sees."""
    torch.manual_seed(0)
    net = network(cameras)
    if answer:
        with torch.no_grad():
            net.head[-1].weight.zero_()
            net.head[-1].bias.fill_(answer)
    save(SuccessClassifier(net, cameras, **rule), path)
    return str(path)
