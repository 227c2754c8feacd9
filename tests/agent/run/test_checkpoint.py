"""Checkpoints: stopping and going on changes nothing, and no file can do harm."""

from __future__ import annotations

import dataclasses
import os
import zipfile

import numpy as np
import pytest
import torch
import torchvision

from agent.calql.algorithm import CalQL, Weights
from agent.config import SECTIONS, CalQLConfig, NetworkConfig, RewardConfig
from agent.data.replay_buffer import Replay, sample_mixed
from agent.env_record import EnvRecord
from agent.run import checkpoint
from agent.run.checkpoint import Checkpoint
from agent.run.network_size import check_sizes, policy_parameters
from agent.spec import Spec, UserError

ENV = EnvRecord("sim", {"task": "Lift", "cameras": ["agentview"], "horizon": 100})


def default_config(**sections):
    return {name: dataclasses.asdict(kind()) for name, kind in SECTIONS.items()} | {
        name: dataclasses.asdict(section) for name, section in sections.items()
    }


@pytest.fixture
def state(spec, network):
    """A checkpoint of an untrained tiny agent."""
    agent = CalQL(spec, network, CalQLConfig(), torch.device("cpu"), 0)
    return Checkpoint(spec, ENV, default_config(network=network), agent.state_dict(), {"updates": 3})


def everything(value, name=""):
    if isinstance(value, dict):
        return {k: v for key, part in value.items() for k, v in everything(part, f"{name}/{key}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for key, part in enumerate(value) for k, v in everything(part, f"{name}/{key}").items()}
    return {name: value}


def differing(one, two):
    one, two = everything(one), everything(two)
    assert one.keys() == two.keys()
    return [
        k for k in one if not (torch.equal(one[k], two[k]) if isinstance(one[k], torch.Tensor) else one[k] == two[k])
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"lagrange_threshold": 0.8, "max_target_backup": True},
        {"max_target_backup": False, "entropy_backup": True, "importance_sampling": False},
    ],
    ids=["lagrange", "sac backup"],
)
def test_p17_save_load_continue_equals_never_stopped(tmp_path, spec, network, make_episode, options):
    """Bit for bit: parameters, targets, lambda, log alpha, optimisers, and the random state of sampling and shifts."""
    config = CalQLConfig(cql_actions=2, augment_pad=2, **options)
    shared = [make_episode(6 + k, seed=k, success=k % 2 == 0) for k in range(6)]

    def begin(seed):
        agent = CalQL(spec, network, config, torch.device("cpu"), seed)
        replays = {name: Replay(spec, 40, RewardConfig(), config.gamma, seed + k) for k, name in enumerate("ab")}
        for episode in shared:
            replays["a"].add(episode)
            replays["b"].add(episode)
        return agent, replays

    def train(agent, replays, updates):
        for k in range(updates):
            batch = sample_mixed(replays["a"], replays["b"], 8, 0.5).augmented(config.augment_pad, agent.generator)
            metrics = agent.update(batch, Weights(1.0, 0.5), update_actor=k % 2 == 0)
        return metrics

    agent, replays = begin(seed=5)
    train(agent, replays, 4)
    generators = {name: replay.generator.get_state() for name, replay in replays.items()}
    path = tmp_path / "run" / "latest.pt"
    Checkpoint(spec, ENV, default_config(calql=config), agent.state_dict(), {"updates": 4}, generators).save(path)
    metrics = train(agent, replays, 4)

    loaded = checkpoint.load(path)
    again, replays_again = begin(seed=99)
    assert differing(again.state_dict()["policy"], agent.state_dict()["policy"])
    again.load_state_dict(loaded.agent)
    for name, replay in replays_again.items():
        replay.generator.set_state(loaded.generators[name])
    assert again.log_multiplier.item() == loaded.agent["log_multiplier"].item()
    metrics_again = train(again, replays_again, 4)
    assert differing(agent.state_dict(), again.state_dict()) == []
    assert differing(metrics, metrics_again) == []
    assert torch.equal(replays["a"].sample(20).actions, replays_again["a"].sample(20).actions)


def test_a_checkpoint_knows_where_it_comes_from(tmp_path, state, spec, network):
    path = tmp_path / "deep" / "folder" / "offline.pt"
    state.config["calql"]["gamma"] = 0.9
    state.save(path)
    loaded = checkpoint.load(str(path))
    assert loaded.spec == spec and loaded.env == ENV and loaded.counters == {"updates": 3}
    assert loaded.config == state.config
    assert loaded.section("calql") == CalQLConfig(gamma=0.9) and loaded.section("network") == network
    assert differing(loaded.agent, state.agent) == []


def test_the_policy_of_a_checkpoint_acts_as_the_one_that_was_saved(tmp_path, spec, network, make_agent):
    agent = make_agent()
    agent.standardise(torch.ones(3), torch.full((3,), 2.0))
    Checkpoint(spec, ENV, default_config(network=network), agent.state_dict()).save(tmp_path / "a.pt")
    policy = checkpoint.load(tmp_path / "a.pt").policy()
    observation = {"cam": np.full((12, 12, 3), 90, np.uint8), "pos": np.ones(3, np.float32)}
    np.testing.assert_array_equal(policy.act(observation, True), agent.average.act(observation, True))
    assert not policy.training


def test_the_policy_of_a_checkpoint_needs_no_weights_file_and_no_network(tmp_path, spec, network, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("downloaded")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    weights = tmp_path / "resnet18.pt"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), weights)
    resnet = dataclasses.replace(network, encoder="resnet18", encoder_weights=str(weights))
    agent = CalQL(spec, resnet, CalQLConfig(), torch.device("cpu"), 0)
    weights.unlink()
    for wanted in (str(weights), "imagenet"):
        config = default_config(network=dataclasses.replace(resnet, encoder_weights=wanted))
        Checkpoint(spec, ENV, config, {"average": agent.state_dict()["average"]}).save(tmp_path / "a.pt")
        policy = checkpoint.load(tmp_path / "a.pt").policy()
        assert differing(policy.state_dict(), agent.policy.state_dict()) == []


HUGE = {
    "the actor": {"actor_hidden": [100_000, 100_000]},
    "one layer": {"actor_hidden": [10**9]},
    "the critics": {"critic_hidden": [50_000, 50_000]},
    "their number": {"critics": 10**9},
    "features": {"features": 10**8},
    "a state's features": {"state_features": 10**9},
    "convolutions": {"channels": [10**5, 10**5]},
    "feature maps": {"channels": [10**9, 4]},
    "layers": {"actor_hidden": [1] * 10**5},
    "an encoder": {"encoder": "resnet34"},
}


@pytest.mark.parametrize("huge", HUGE)
def test_networks_that_are_larger_than_the_file_are_not_built(tmp_path, spec, network, make_agent, huge):
    config = default_config(network=dataclasses.replace(network, **HUGE[huge]))
    Checkpoint(spec, ENV, config, make_agent().state_dict()).save(tmp_path / "a.pt")
    for build in (Checkpoint.policy, Checkpoint.check_sizes):
        with pytest.raises(UserError, match=r"(parameters or more|more memory than there is)"):
            build(checkpoint.load(tmp_path / "a.pt"))


def test_an_image_that_is_too_large_is_not_put_through_the_network(tmp_path, network, make_agent):
    large = Spec({"cam": (10**6, 10**6, 3)}, {"pos": 3}, 2)
    Checkpoint(large, ENV, default_config(network=network), make_agent().state_dict()).save(tmp_path / "a.pt")
    with pytest.raises(UserError, match="more memory than there is"):
        checkpoint.load(tmp_path / "a.pt").policy()


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"head": "flatten"},
        {"encoder": "resnet18"},
        {"encoder": "resnet34", "head": "flatten"},
        {"state_features": 0},
        {"actor_hidden": [], "critic_hidden": []},
        {"channels": [4, 6], "strides": [3, 2], "head": "flatten"},
    ],
    ids=str,
)
@pytest.mark.parametrize("cameras", [{}, {"a": (45, 33, 3), "b": (64, 64, 3)}], ids=["states", "cameras"])
def test_the_declared_size_is_that_of_the_networks(network, sizes, cameras):
    """Never more than there are, or whole checkpoints were refused; nearly as many, or huge ones were built."""
    spec, config = Spec(cameras, {"pos": 3}, 2), dataclasses.replace(network, **sizes)
    agent = CalQL(spec, config, CalQLConfig(target_subset=1), torch.device("cpu"), 0)
    there = sum(value.numel() for value in agent.policy.parameters())
    assert 0.5 * there < policy_parameters(spec, config) <= there
    check_sizes(spec, config, agent.state_dict())


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path, state, monkeypatch):
    path = tmp_path / "latest.pt"
    state.save(path)
    before = path.read_bytes()

    def full(data, file):
        file.write(b"PK half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"latest\.pt: cannot be written: .*No space"):
        state.save(path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["latest.pt"]


def test_the_file_appears_only_when_it_is_whole_and_synced(tmp_path, state, monkeypatch):
    path, order = tmp_path / "latest.pt", []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("sync"), sync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda *a: (order.append(f"rename {path.exists()}"), replace(*a))[1])
    state.save(path)
    assert order[:2] == ["sync", "rename False"] and os.listdir(tmp_path) == ["latest.pt"]


def test_a_truncated_file_is_refused_naming_it(tmp_path, state):
    state.save(tmp_path / "whole.pt")
    data = (tmp_path / "whole.pt").read_bytes()
    for size in (0, 1, 100, len(data) // 2, len(data) - 1):
        (tmp_path / "cut.pt").write_bytes(data[:size])
        with pytest.raises(UserError, match=r"cut\.pt: not a checkpoint of this program, or damaged"):
            checkpoint.load(tmp_path / "cut.pt")


def test_a_byte_that_flipped_is_never_loaded(tmp_path, state):
    """Wherever it flips: the file is refused, or what it says is unchanged (padding)."""
    state.save(tmp_path / "whole.pt")
    data = (tmp_path / "whole.pt").read_bytes()
    whole, refused = checkpoint.load(tmp_path / "whole.pt"), 0
    for position in range(5, len(data), len(data) // 150):
        flipped = bytearray(data)
        flipped[position] ^= 0x10
        (tmp_path / "flipped.pt").write_bytes(flipped)
        try:
            loaded = checkpoint.load(tmp_path / "flipped.pt")
        except UserError:
            refused += 1
        else:
            assert not differing(whole.agent, loaded.agent) and whole.config == loaded.config
    assert refused > 20


def test_a_weight_that_the_table_of_contents_calls_a_folder_is_not_read_as_zeros(tmp_path, state):
    state.save(tmp_path / "whole.pt")
    data = bytearray((tmp_path / "whole.pt").read_bytes())
    data[data.rindex(b"PK\x01\x02", 0, data.rindex(b"archive/data/9")) + 38] ^= 0x10  # DOS's mark of a folder
    (tmp_path / "flipped.pt").write_bytes(data)
    with pytest.raises(UserError, match=r"flipped\.pt: not a checkpoint .* table of contents is damaged"):
        checkpoint.load(tmp_path / "flipped.pt")


@pytest.mark.parametrize("harm", ["damaged", "gone", "all"])
def test_the_newest_whole_checkpoint_of_a_run(tmp_path, state, caplog, harm):
    for updates in (10, 20, 30):
        state.counters["updates"] = updates
        state.save(tmp_path / "checkpoints" / f"{updates:08d}.pt")
    state.save(tmp_path / "latest.pt")
    assert checkpoint.load_newest(tmp_path).counters["updates"] == 30
    for path in (tmp_path / "latest.pt", *(tmp_path / "checkpoints").glob("*.pt" if harm == "all" else "*30.pt")):
        path.write_bytes(path.read_bytes()[:5000])
    if harm == "all":
        with pytest.raises(UserError, match=r"latest\.pt: not a checkpoint"):
            checkpoint.load_newest(tmp_path)
        assert (tmp_path / "latest.pt").exists()
        return
    if harm == "gone":
        (tmp_path / "latest.pt").unlink()
    assert checkpoint.load_newest(tmp_path).counters["updates"] == 20
    assert "latest.pt" in caplog.text and "00000020.pt" in caplog.text
    assert (tmp_path / "latest.pt.damaged").exists() == (harm == "damaged")


def test_foreign_and_missing_files_are_refused_naming_them(tmp_path, state):
    torch.save({"model": torch.zeros(3)}, tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "text.pt").write_text("hello\nworld\n")
    torch.save({"format": 999, "spec": {}}, tmp_path / "newer.pt")
    malformed = {"format": checkpoint.FORMAT, **vars(state), "spec": {"cameras": 3}}
    torch.save(malformed, tmp_path / "spec.pt")
    for name in ("other.pt", "list.pt", "text.pt", "newer.pt", "spec.pt"):
        with pytest.raises(UserError, match=f"{name}: not a checkpoint") as error:
            checkpoint.load(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"absent\.pt: no such file"):
        checkpoint.load(tmp_path / "absent.pt")
    with pytest.raises(UserError, match="is a folder"):
        checkpoint.load(tmp_path)


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_a_checkpoint_from_a_stranger_runs_no_code(tmp_path, state):
    data = {
        "format": checkpoint.FORMAT,
        **vars(state),
        "spec": state.spec.to_dict(),
        "counters": Bomb(tmp_path / "hit"),
    }
    torch.save(data, tmp_path / "bomb.pt")
    with pytest.raises(UserError, match=r"bomb\.pt"):
        checkpoint.load(tmp_path / "bomb.pt")
    assert not (tmp_path / "hit").exists()


def test_every_default_config_survives_the_file(tmp_path, spec):
    """Infinities, None and lists included."""
    Checkpoint(spec, ENV, default_config(), {}).save(tmp_path / "a.pt")
    loaded = checkpoint.load(tmp_path / "a.pt")
    for name, kind in SECTIONS.items():
        assert loaded.section(name) == kind()
    assert isinstance(loaded.section("network"), NetworkConfig)


def test_a_checkpoint_of_before_network_init_has_the_networks_that_it_was_trained_with(tmp_path, state):
    expected = state.policy()
    for name in ("init", "last_gain", "log_std", "state_standardise"):
        del state.config["network"][name]
    state.save(tmp_path / "old.pt")
    loaded = checkpoint.load(tmp_path / "old.pt")
    network = loaded.section("network")
    assert (network.init, network.log_std, network.state_standardise) == ("torch", "direct", True)
    assert differing(loaded.policy().state_dict(), expected.state_dict()) == []


def test_a_setting_that_is_gone_is_passed_over_where_it_was_off(tmp_path, state):
    """And a checkpoint that used it says which, before a network of other sizes is built."""
    gone = {"policy": "gaussian", "chunk": 1, "candidates": 8, "flow_steps": 5, "critic_bins": 0, "choose": False}
    state.config["network"] |= gone
    state.save(tmp_path / "old.pt")
    assert checkpoint.load(tmp_path / "old.pt").config["network"].keys() == default_config()["network"].keys()
    state.config["network"]["chunk"] = 5
    state.save(tmp_path / "old.pt")
    with pytest.raises(UserError, match=r"old\.pt: trained with network\.chunk, which this version no longer has"):
        checkpoint.load(tmp_path / "old.pt")


def rewritten(path, target, compression=zipfile.ZIP_STORED, extra=()):
    """The archive once more, with its entries compressed or others beside them."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
        for name, content in extra:
            new.writestr(name, content, zipfile.ZIP_DEFLATED)


class Big:
    def __reduce__(self):
        return (bytearray, (10**11,))


def test_item_17_a_checkpoint_that_unpacks_to_more_than_its_size_is_refused(tmp_path, state):
    """Small files that would take 60 MB, 100 GB, and without end."""
    state.save(tmp_path / "whole.pt")
    state.agent["zeros"] = torch.zeros(15_000_000)
    state.save(tmp_path / "large.pt")
    rewritten(tmp_path / "large.pt", tmp_path / "compressed.pt", zipfile.ZIP_DEFLATED)
    (tmp_path / "large.pt").unlink()
    assert (tmp_path / "compressed.pt").stat().st_size < 300_000
    rewritten(tmp_path / "whole.pt", tmp_path / "beside.pt", extra=[("archive/data/999", bytes(1_000_000))])
    state.agent["zeros"] = torch.zeros(1).expand(60_000, 60_000)
    state.save(tmp_path / "expanded.pt")
    nested: list = []
    for _ in range(30):
        nested = [nested, nested]
    state.agent["zeros"] = nested
    state.save(tmp_path / "nested.pt")
    state.agent["zeros"] = Big()
    state.save(tmp_path / "big.pt")
    reasons = {
        "compressed": "unpacks to more",
        "beside": "unpacks to more",
        "expanded": "larger than what is stored",
        "nested": "too many values",
        "big": "bytearray",
    }
    for name, reason in reasons.items():
        with pytest.raises(UserError, match=rf"{name}\.pt: not a checkpoint.*{reason}") as error:
            checkpoint.load(tmp_path / f"{name}.pt")
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"not a file of torch\.save"):
        (tmp_path / "prefix.pt").write_bytes(b"x" + (tmp_path / "whole.pt").read_bytes())
        checkpoint.load(tmp_path / "prefix.pt")
