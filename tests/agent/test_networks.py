"""Networks: each against something plainer that computes the same."""

from __future__ import annotations

import copy
import dataclasses
import math
import zipfile
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from agent.config import NetworkConfig
from agent.critics import Critics
from agent.networks import Actor, Encoder, ImageEncoder, SpatialSoftmax, TanhNormal
from agent.spec import Spec, UserError

RESNET = NetworkConfig(encoder="resnet18", features=8)


def test_spatial_softmax_finds_a_bright_spot():
    maps = torch.zeros(2, 3, 5, 9)
    maps[0, 1, 4, 0] = 50.0  # bottom left
    maps[1, 2, 1, 6] = 50.0
    points = SpatialSoftmax(3)(maps)
    x, y = points[:, :3], points[:, 3:]
    assert (x[0, 1].item(), y[0, 1].item()) == pytest.approx((-1, 1), abs=1e-4)
    assert (x[1, 2].item(), y[1, 2].item()) == pytest.approx((0.5, -0.5), abs=1e-4)
    assert points[0, [0, 2, 3, 5]].abs().max() < 1e-5  # nothing there: the middle


def tanh_normal(mean: torch.Tensor, log_std: torch.Tensor) -> TransformedDistribution:
    return TransformedDistribution(Independent(Normal(mean, log_std.exp()), 1), [TanhTransform(cache_size=1)])


def normals(mean, count, generator):
    return torch.randn((len(mean), count, mean.shape[1]), generator=generator, dtype=mean.dtype)


def test_tanh_normal_sample_equals_torch_distributions():
    g = torch.Generator().manual_seed(0)
    mean, log_std = torch.randn(4, 3, generator=g).double(), (torch.randn(4, 3, generator=g) - 1).double()
    actions, log_prob = TanhNormal(mean, log_std).sample(normals(mean, 6, g))
    assert actions.shape == (4, 6, 3) and log_prob.shape == (4, 6)
    expected = tanh_normal(mean[:, None], log_std[:, None]).log_prob(actions)
    torch.testing.assert_close(log_prob, expected, rtol=1e-5, atol=1e-5)
    assert len(torch.unique(actions)) == actions.numel()  # each its own noise
    many, _ = TanhNormal(mean, log_std).sample(normals(mean, 20_000, g))
    torch.testing.assert_close(many.atanh().mean(1), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(many.atanh().std(1).log(), log_std, atol=0.05, rtol=0)


def test_tanh_normal_samples_where_tanh_saturates_have_finite_exact_densities():
    """In float32 tanh(12) is 1, and log(1 - a^2) of it is -inf; the density is of u, not of the rounded a."""
    mean = torch.tensor([[12.0, -12.0]])
    noise = torch.randn((1, 50, 2), generator=torch.Generator().manual_seed(0))
    actions, log_prob = TanhNormal(mean, torch.full((1, 2), -3.0)).sample(noise)
    assert actions.abs().max() == 1.0 and log_prob.isfinite().all()
    noise = noise.double()
    before = mean.double()[:, None] + math.exp(-3) * noise
    exact = Normal(0.0, 1.0).log_prob(noise) + 3.0 - torch.log1p(-(torch.tanh(before) ** 2))
    torch.testing.assert_close(log_prob.double(), exact.sum(-1), rtol=1e-4, atol=1e-3)


def test_samples_carry_gradient_to_mean_and_std():
    mean, log_std = torch.zeros(2, 2, requires_grad=True), torch.zeros(2, 2, requires_grad=True)
    actions, _ = TanhNormal(mean, log_std).sample(normals(mean, 3, torch.Generator().manual_seed(0)))
    actions.sum().backward()
    assert (mean.grad != 0).all() and (log_std.grad != 0).all()


def test_actor_starts_near_zero_and_clips_log_std(network):
    actor = Actor(6, 2, network)
    start = actor(torch.randn(5, 6))
    assert start.mean.abs().max() < 0.1 and start.log_std.abs().max() < 0.1
    with torch.no_grad():
        actor.log_std.bias.copy_(torch.tensor([50.0, -50.0]))
    assert actor(torch.randn(5, 6)).log_std.unique(dim=0).tolist() == [[2.0, -20.0]]


def separate_critic(critics: Critics, member: int, layer_norm: bool) -> nn.Sequential:
    """Member i as an ordinary stack of nn.Linear and nn.LayerNorm."""
    layers: list[nn.Module] = []
    last = len(critics.weights) - 1
    for k, (weight, bias) in enumerate(zip(critics.weights, critics.biases, strict=True)):
        linear = nn.Linear(*weight.shape[1:])
        linear.load_state_dict({"weight": weight[member].T, "bias": bias[member, 0]})
        layers.append(linear)
        if k < last and layer_norm:
            norm = nn.LayerNorm(weight.shape[2])
            norm.load_state_dict({"weight": critics.scales[k][member, 0], "bias": critics.offsets[k][member, 0]})
            layers.append(norm)
        if k < last:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


@pytest.mark.parametrize("layer_norm", [True, False])
def test_critics_equal_separate_networks(critics, layer_norm):
    features, actions = torch.randn(5, 6), torch.rand(5, 3, 2)
    q = critics(features, actions)
    assert q.shape == (4, 5, 3)
    apart = [separate_critic(critics, i, layer_norm) for i in range(4)]
    joined = torch.cat([features[:, None].expand(-1, 3, -1), actions], -1)
    expected = torch.stack([one(joined)[..., 0] for one in apart])
    torch.testing.assert_close(q, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(q[0], q[1], atol=1e-3)
    torch.testing.assert_close(critics(features, actions, torch.tensor([2, 0])), q[[2, 0]])
    sizes = [sum(p.numel() for p in module.parameters()) for module in (critics, apart[0])]
    assert sizes[0] == 4 * sizes[1]


def test_critics_start_as_different_functions(network):
    torch.manual_seed(0)
    q = Critics(6, 2, network)(torch.randn(5, 6), torch.rand(5, 1, 2))[..., 0]
    assert all((q[i] - q[j]).abs().max() > 1e-3 for i in range(3) for j in range(i))


def test_default_networks_draw_what_they_always_drew(network):
    """Checkpoints and seeds of before: the same random numbers in the same order, under the same names."""
    torch.manual_seed(0)
    actor, critics = Actor(6, 2, network), Critics(6, 2, network)
    assert set(actor.state_dict()) == {
        f"{layer}.{kind}" for layer in ("trunk.0", "trunk.1", "mean", "log_std") for kind in ("weight", "bias")
    }
    torch.manual_seed(0)
    trunk, mean, log_std = nn.Linear(6, 16), nn.Linear(16, 2), nn.Linear(16, 2)
    for out in (mean, log_std):
        nn.init.orthogonal_(out.weight, gain=0.01)
    assert torch.equal(actor.trunk[0].weight, trunk.weight) and torch.equal(actor.trunk[0].bias, trunk.bias)
    assert torch.equal(actor.mean.weight, mean.weight) and torch.equal(actor.log_std.weight, log_std.weight)
    for (inputs, outputs), weight, bias in zip(
        [(8, 16), (16, 16), (16, 1)], critics.weights, critics.biases, strict=True
    ):
        bound = 1 / math.sqrt(inputs)
        assert torch.equal(weight, torch.empty(3, inputs, outputs).uniform_(-bound, bound))
        assert torch.equal(bias, torch.empty(3, 1, outputs).uniform_(-bound, bound))


def gram(weight):
    """Of its shorter side: gain^2 times the identity when the matrix is orthogonal."""
    return weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight


def scaled(size, gain):
    return gain**2 * torch.eye(size)


def test_orthogonal_networks_are_the_authors(network):
    """Orthogonal with gain sqrt 2, zero biases, last layer 0.01; sigma begins at exp(-1) (Nakamoto et al. 2023)."""
    torch.manual_seed(0)
    theirs = dataclasses.replace(network, init="orthogonal", log_std="scaled", critic_layer_norm=False)
    actor, critics = Actor(6, 2, theirs), Critics(6, 2, theirs)
    root = math.sqrt(2)
    torch.testing.assert_close(gram(actor.trunk[0].weight), scaled(6, root))
    outputs = torch.cat([actor.mean.weight, actor.log_std.weight])  # one layer in the authors' code
    torch.testing.assert_close(gram(outputs), scaled(4, 0.01), rtol=1e-4, atol=1e-9)
    for member in range(3):  # whole layers: the first one's of state and action together
        for layer, (size, gain) in enumerate([(8, root), (16, root), (1, 0.01)]):
            torch.testing.assert_close(gram(critics.weights[layer][member]), scaled(size, gain), rtol=1e-4, atol=1e-5)
    assert (critics.weights[0][0] - critics.weights[0][1]).abs().max() > 0.1  # each its own
    biases = [actor.trunk[0].bias, actor.mean.bias, actor.log_std.bias, *critics.biases]
    assert not any(bias.any() for bias in biases)
    log_std = actor(torch.randn(5, 6)).log_std
    torch.testing.assert_close(log_std, torch.full((5, 2), -1.0), atol=0.1, rtol=0)


def test_orthogonal_critics_tell_their_inputs_apart(network):
    """Without LayerNorm the last hidden layer of the plain initialisation is much flatter over the inputs."""
    spread = {}
    for init in ("torch", "orthogonal"):
        torch.manual_seed(0)
        config = dataclasses.replace(network, init=init, critic_layer_norm=False, critic_hidden=[256] * 4)
        critics = separate_critic(Critics(6, 2, config), 0, False)
        spread[init] = critics[:-1](torch.randn(500, 8)).std(0).mean().item()
    assert spread["orthogonal"] > 4 * spread["torch"], spread


def test_xavier_networks_have_its_bounds_in_every_layer(network):
    torch.manual_seed(0)
    actor, critics = (kind(6, 2, dataclasses.replace(network, init="xavier")) for kind in (Actor, Critics))
    layers = [actor.trunk[0].weight, actor.mean.weight, actor.log_std.weight, *(w[0] for w in critics.weights)]
    for weight in layers:
        bound = math.sqrt(6 / sum(weight.shape))
        assert 0.5 * bound < weight.abs().max() <= bound
    assert not any(bias.any() for bias in (actor.trunk[0].bias, actor.mean.bias, *critics.biases))


def test_scaled_log_std_learns_its_multiplier_and_offset(network):
    actor = Actor(6, 2, dataclasses.replace(network, log_std="scaled"))
    with torch.no_grad():
        actor.log_std.bias.copy_(torch.tensor([0.5, -0.25]))
        actor.log_std.weight.zero_()
        actor.log_std_multiplier.fill_(2.0)
    log_std = actor(torch.zeros(3, 6)).log_std
    torch.testing.assert_close(log_std, torch.tensor([0.0, -1.5]).expand(3, 2))
    log_std.sum().backward()
    assert actor.log_std_offset.grad == 6 and actor.log_std_multiplier.grad == pytest.approx(0.75)


@pytest.mark.parametrize("head", ["spatial_softmax", "flatten"])
def test_encoder_uses_every_camera_and_every_state(network, head):
    spec = Spec({"left": (12, 16, 3), "right.eye": (16, 12, 3)}, {"pos": 3, "grip": 1}, 2)
    encoder = Encoder(spec, dataclasses.replace(network, head=head))
    g = torch.Generator().manual_seed(0)
    observation = {
        key: torch.randint(0, 256, (2, *shape), dtype=torch.uint8, generator=g) for key, shape in spec.cameras.items()
    } | {key: torch.randn(2, n, generator=g) for key, n in spec.states.items()}
    features = encoder(observation)
    assert features.shape == (2, encoder.dim) == (2, 8 + 8 + 8)
    for key in spec.keys:
        changed = {**observation, key: observation[key].flip(0)}
        assert not torch.allclose(encoder(changed), features, atol=1e-4), key


def test_encoder_without_cameras_or_without_states(network):
    assert Encoder(Spec({}, {"pos": 3}, 2), network)({"pos": torch.zeros(2, 3)}).shape == (2, 8)
    camera = Encoder(Spec({"cam": (12, 12, 3)}, {}, 2), network)
    assert camera({"cam": torch.zeros(2, 12, 12, 3, dtype=torch.uint8)}).shape == (2, 8)


def test_states_are_standardised(network, state_spec):
    one, other = Encoder(state_spec, network), Encoder(state_spec, network)
    other.load_state_dict(one.state_dict())
    mean, std = torch.tensor([5.0, -3.0, 100.0]), torch.tensor([2.0, 0.1, 30.0])
    other.standardise(mean, std)
    raw = torch.randn(4, 3)
    torch.testing.assert_close(other({"pos": raw * std + mean}), one({"pos": raw}), rtol=1e-4, atol=1e-4)
    assert torch.equal(other.state_dict()["state_mean"], mean)  # and a robot gets them with the weights


def test_without_state_features_states_are_passed_on_standardised(network, state_spec):
    encoder = Encoder(state_spec, dataclasses.replace(network, state_features=0))
    width = sum(state_spec.states.values())
    encoder.standardise(torch.full((width,), 2.0), torch.full((width,), 4.0))
    states = {key: torch.full((3, length), 10.0) for key, length in state_spec.states.items()}
    assert encoder.dim == width and not list(encoder.parameters())
    assert torch.equal(encoder(states), torch.full((3, width), 2.0))


def test_a_small_cnn_is_convolution_norm_and_relu_of_pixels_from_minus_one_to_one(network):
    torch.manual_seed(0)
    encoder = ImageEncoder((12, 12, 3), dataclasses.replace(network, channels=[8, 4], strides=[2, 1])).double()
    assert [name for name, _ in encoder.net.named_parameters()] == [  # those of old checkpoints
        f"{layer}.{kind}" for layer in (0, 1, 3, 4) for kind in ("weight", "bias")
    ]
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    images = torch.randint(0, 256, (5, 12, 12, 3), dtype=torch.uint8)
    maps = (images.double().permute(0, 3, 1, 2) - 127.5) / 127.5
    for layer, stride in ((0, 2), (3, 1)):
        convolution, norm = encoder.net[layer], encoder.net[layer + 1]
        maps = F.conv2d(maps, convolution.weight, convolution.bias, stride, 1).movedim(1, -1)
        maps = F.relu(F.layer_norm(maps, norm.normalized_shape, norm.weight, norm.bias)).movedim(-1, 1)
    plain, own, parameters = encoder.out(encoder.pool(maps)), encoder(images), list(encoder.parameters())
    torch.testing.assert_close(own, plain, rtol=0, atol=1e-12)
    for one, other in zip(*(torch.autograd.grad(q.square().sum(), parameters) for q in (own, plain)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_channels_and_strides_of_different_lengths_are_refused():
    with pytest.raises(UserError, match=r"network\.channels"):
        ImageEncoder((12, 12, 3), NetworkConfig(channels=[8, 8], strides=[2]))


def test_resnet_builds_and_its_batch_statistics_stand_still():
    torch.manual_seed(0)
    encoder = ImageEncoder((32, 32, 3), RESNET)
    before = copy.deepcopy(dict(encoder.net.named_buffers()))
    encoder.train()
    images = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8)
    together = encoder(images)
    assert together.shape == (4, 8) and len(before) > 50
    assert all(torch.equal(before[name], buffer) for name, buffer in encoder.net.named_buffers())
    torch.testing.assert_close(encoder(images[:1]), together[:1], rtol=1e-3, atol=1e-4)  # not of its batch's company


def test_resnet_sees_images_normalised_as_torchvision_does():
    encoder = ImageEncoder((32, 32, 3), RESNET)
    seen = []
    encoder.net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    encoder(images)
    transform = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(seen[0], transform(images.permute(0, 3, 1, 2) / 255), rtol=1e-4, atol=1e-4)


def test_resnet_weights_from_a_file(tmp_path):
    torch.manual_seed(1)
    original = torchvision.models.resnet18(weights=None)
    path = tmp_path / "resnet18.pt"
    torch.save(original.state_dict(), path)
    encoder = ImageEncoder((32, 32, 3), dataclasses.replace(RESNET, encoder_weights=str(path), freeze_encoder=True))
    images = torch.zeros(1, 3, 32, 32)
    original.eval()
    expected = original.layer4(
        original.layer3(original.layer2(original.layer1(original.maxpool(original.relu(original.bn1(original.conv1(images)))))))
    )  # fmt: skip
    torch.testing.assert_close(encoder.net(images), expected)
    encoder(torch.zeros(1, 32, 32, 3, dtype=torch.uint8)).sum().backward()
    assert all(p.grad is None for p in encoder.net.parameters())  # frozen
    assert encoder.out[0].weight.grad is not None


def test_resnet_weights_from_a_bad_file_are_refused_naming_it(tmp_path):
    with pytest.raises(UserError, match=r"absent\.pt: no such file"):
        ImageEncoder((32, 32, 3), dataclasses.replace(RESNET, encoder_weights=str(tmp_path / "absent.pt")))
    (tmp_path / "noise.pt").write_bytes(b"not a state dict")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    for name in ("noise.pt", "other.pt"):
        with pytest.raises(UserError, match=f"{name}: not weights of torchvision's resnet18"):
            ImageEncoder((32, 32, 3), dataclasses.replace(RESNET, encoder_weights=str(tmp_path / name)))


def test_resnet_weights_that_unpack_to_more_than_their_size_are_refused(tmp_path):
    torch.save({"weight": torch.zeros(1_000_000)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    with pytest.raises(UserError, match=r"bomb\.pt: not weights of .*: it unpacks to more than its size"):
        ImageEncoder((32, 32, 3), dataclasses.replace(RESNET, encoder_weights=str(tmp_path / "bomb.pt")))


def test_resnet_weights_of_an_old_torch_are_read(tmp_path):
    original = torchvision.models.resnet18(weights=None)
    torch.save(original.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    encoder = ImageEncoder((32, 32, 3), dataclasses.replace(RESNET, encoder_weights=str(tmp_path / "old.pth")))
    torch.testing.assert_close(encoder.net[0].weight, original.conv1.weight)


def test_imagenet_weights_without_network_say_what_to_do(monkeypatch, tmp_path):
    def no_network(*args, **kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # no cache
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(UserError, match=r"ImageNet weights of resnet18 .*--network\.encoder_weights FILE"):
        ImageEncoder((32, 32, 3), dataclasses.replace(RESNET, encoder_weights="imagenet"))
