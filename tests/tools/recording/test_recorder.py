"""A person at the fake environment: the device's commands are a list."""

import gymnasium
import numpy as np
import pytest

from agent.spec import UserError
from envs.base import RobotFault
from robot_server.command import Command, Device
from tools.common.rollout import make_env
from tools.recording.config import CollectConfig
from tools.recording.recorder import Recorder, Take, rate

SEED = 3


def go(x=0.0, y=0.0, *events, gripper=-1.0, enabled=True):
    return Command(np.array([x, y, 0, 0, 0, 0], np.float32), gripper, enabled, events)


NOTHING = go()


class Hand(Device):
    """Gives the commands one by one, the first while the environment is reset; then it holds still, and ends."""

    def __init__(self, *commands):
        self.commands, self.stopped = list(commands), False

    def read(self):
        if not self.commands:
            self.stopped = True
        return self.commands.pop(0) if self.commands else NOTHING


@pytest.fixture
def env():
    made = make_env("fake", {"horizon": 6})
    yield made
    made.close()


def record(env, *commands, show=lambda observation, status: None, **config):
    hand = Hand(NOTHING, NOTHING, *commands)
    recorder = Recorder(env, hand, CollectConfig(hz=1e6, **config), show, lambda: hand.stopped)
    return recorder.record(SEED)


def towards_the_target(env):
    """Enough commands to reach it."""
    env.reset(seed=SEED)
    way = (env.unwrapped.target - env.unwrapped.position) / 0.25
    steps = int(np.ceil(np.abs(way).max()))
    return [go(*(way / steps)) for _ in range(steps)]


def test_the_rate_is_the_configs_or_the_environments_or_20(env):
    class Ten:
        class unwrapped:
            class options:
                control_hz = 10.0

    assert rate(env, CollectConfig()) == 20 and rate(Ten, CollectConfig()) == 10 and rate(Ten, CollectConfig(hz=5)) == 5


def test_what_is_done_before_the_first_motion_is_not_recorded(env):
    take = record(env, NOTHING, go(1, enabled=False), go(0.5, 0.25), NOTHING, go(-1, 0), go(0, 0, "end"))
    assert take.episode.actions.tolist() == [[0.5, 0.25], [0, 0], [-1, 0]]
    first = env.reset(seed=SEED)[0]
    assert all(np.array_equal(take.episode.observations[key][0], first[key]) for key in first)


def test_by_option_it_is(env):
    take = record(env, NOTHING, go(0.5), go(0, 0, "end"), idle_steps=True)
    assert take.episode.actions.tolist() == [[0, 0], [0.5, 0]]


def test_the_gripper_is_a_motion(env):
    take = record(env, NOTHING, go(gripper=1), go(0, 0, "end", gripper=1))
    assert len(take.episode) == 1


def test_the_arm_holds_while_it_is_not_enabled_or_paused(env):
    commands = [go(1), go(1, enabled=False), go(0.5, 0, "pause"), go(0.5), go(0.25, 0, "resume"), go(0, 0, "end")]
    take = record(env, *commands)
    assert take.episode.actions[:, 0].tolist() == [1, 0, 0.25]


@pytest.mark.parametrize("steps", [0, 2])
def test_a_device_that_goes_away_costs_no_step(env, steps):
    class Unplugged(Hand):
        def read(self):
            if not self.commands:
                raise UserError("the gamepad has gone")
            return super().read()

    recorder = Recorder(env, Unplugged(NOTHING, NOTHING, *[go(0.1)] * steps), CollectConfig(hz=1e6))
    if not steps:
        with pytest.raises(UserError, match="has gone"):
            recorder.record(SEED)
    else:
        take = recorder.record(SEED)
        assert len(take.episode) == 2 and take.episode.truncated[-1] and take.error == "step 2: the gamepad has gone"


def test_an_episode_that_a_person_ends_is_truncated(env):
    episode = record(env, go(0.1), go(0.1), go(0, 0, "end")).episode
    assert episode.truncated.tolist() == [False, True] and not episode.terminated.any()
    assert len(episode.observations["proprio"]) == 3 and not episode.succeeded
    assert "marked" not in episode.meta
    episode.check(episode.spec)


@pytest.mark.parametrize(("word", "success"), [("success", True), ("failure", False)])
def test_a_word_ends_and_marks_the_episode(env, word, success):
    episode = record(env, go(0.1), go(0.1), go(0, 0, word)).episode
    assert episode.succeeded == success and episode.meta["marked"] == word and not episode.meta["env_success"]
    assert episode.rewards.tolist() == [0, success] and bool(episode.terminated[-1]) == success
    episode.check(episode.spec)


def test_the_persons_word_wins_over_the_environments(env):
    way = towards_the_target(env)
    kept, failed = (record(env, *way, NOTHING, go(0, 0, word)).episode for word in ("end", "failure"))
    assert kept.succeeded and kept.rewards[-1] == 1 and kept.terminated[-1] and "marked" not in kept.meta
    assert not kept.truncated.any()
    assert not failed.succeeded and not failed.rewards.any() and failed.truncated[-1] and not failed.terminated.any()
    assert failed.meta["env_success"] is True
    failed.check(failed.spec)


def test_what_the_environment_ends_waits_for_a_word(env):
    states = []
    way = towards_the_target(env)
    take = record(env, *way, NOTHING, NOTHING, go(0, 0, "discard"), show=lambda _, s: states.append(s["state"]))
    assert take.episode is None and take.ending == "discard" and states[-2:] == ["ended", "ended"]


def test_without_confirm_it_is_kept_at_once(env):
    take = record(env, *towards_the_target(env), go(0, 0, "discard"), confirm=False)
    assert take.episode.succeeded


def test_a_time_limit_is_the_environments_end(env):
    take = record(env, *[go(0.01)] * 6, go(0, 0, "end"))
    assert len(take.episode) == 6 and take.episode.truncated[-1]


def test_stopped_at_the_question_the_episode_is_kept(env):
    way = towards_the_target(env)
    assert record(env, *way).episode.succeeded
    take = record(env, *way, go(0, 0, "stop"))
    assert take.episode.succeeded and take.ending == "stop"


@pytest.mark.parametrize("word", ["discard", "stop"])
def test_nothing_is_left_of_a_discarded_or_stopped_one(env, word):
    assert record(env, go(1), go(0, 0, word)).episode is None


def test_an_episode_without_a_step_is_nothing(env):
    assert record(env, NOTHING, go(0, 0, "success")).episode is None


def test_what_was_pressed_during_the_reset_is_not_meant_for_the_episode(env):
    hand = Hand(go(1, 0, "discard"), go(gripper=1), go(0.5, gripper=1), go(0, 0, "end", gripper=1))
    take = Recorder(env, hand, CollectConfig(hz=1e6), stop=lambda: hand.stopped).record(SEED)
    assert len(take.episode) == 1  # the gripper was closed already: no motion of its own


def test_the_episode_before_is_settled_before_anything_moves(env):
    hand, log = Hand(NOTHING, NOTHING, go(1), go(0, 0, "end")), []
    hand.reset = lambda: log.append("device reset")
    read, reset = hand.read, env.reset
    hand.read = lambda: log.append("read") or read()
    env.reset = lambda **seed: log.append("reset") or reset(**seed)
    Recorder(env, hand, CollectConfig(hz=1e6)).record(SEED, lambda: log.append("ready"))
    assert log[:5] == ["reset", "ready", "read", "device reset", "read"]


def test_the_status_says_what_a_person_wants_to_know(env):
    seen = []
    record(env, NOTHING, go(0.5), go(0, 0, "end"), show=lambda observation, status: seen.append((observation, status)))
    waiting, recording = (status for _, status in seen)
    assert waiting["state"] == "waiting" and waiting["step"] == 0
    assert {k: recording[k] for k in ("state", "step", "return", "success", "gripper", "enabled")} == {
        "state": "recording", "step": 1, "return": 0, "success": False, "gripper": -1, "enabled": True,
    }  # fmt: skip
    assert recording["motion"][0] == 0.5
    assert seen[1][0]["proprio"][2] == pytest.approx(0.125)  # what came of the step: its velocity


class Page(Hand):
    """A device that can say that there are to be no steps: after so many reads as `held` has."""

    latches = True

    def __init__(self, held, *commands):
        super().__init__(*commands)
        self._held, self.reads = held, 0

    @property
    def hold_reason(self):
        return "stopped by a person" if self.reads in self._held else ""

    def read(self):
        self.reads += 1
        return super().read()


def test_a_device_that_is_held_makes_one_step_without_motion_and_then_none(env):
    held = range(5, 9)
    commands = [go(0.5 if number not in held else 0) for number in range(1, 12)]
    hand = Page(held, *commands, go(0, 0, "end"))
    take = Recorder(env, hand, CollectConfig(hz=1e6), stop=lambda: hand.stopped).record(SEED)
    assert take.episode.actions[:, 0].tolist() == [0.5, 0.5, 0, 0.5, 0.5, 0.5]


def test_no_reset_while_it_is_held(env, monkeypatch):
    hand, reads = Page(range(4), *[NOTHING] * 8, go(0.5), go(0, 0, "end")), []
    reset = env.reset
    monkeypatch.setattr(env, "reset", lambda **options: reads.append(hand.reads) or reset(**options))
    take = Recorder(env, hand, CollectConfig(hz=1e6), stop=lambda: hand.stopped).record(SEED)
    assert reads == [4] and len(take.episode) == 1


def test_who_waits_for_a_resume_is_told_and_the_episode_before_is_settled(env):
    hand, told = Page(range(4), *[NOTHING] * 8, go(0.5), go(0, 0, "end")), []
    recorder = Recorder(env, hand, CollectConfig(hz=1e6), lambda seen, status: told.append(status["state"]))
    recorder.record(SEED, lambda: told.append("ready"))
    assert told[:2] == ["ready", "no reset: stopped by a person"] and "ready" in told[2:]


def test_a_latched_stop_ends_the_episode_and_not_the_recording(env):
    hand = Page([], NOTHING, NOTHING, go(0.5), go(0, 0, "stop"))
    take = Recorder(env, hand, CollectConfig(hz=1e6), stop=lambda: hand.stopped).record(SEED)
    assert take.ending == "end" and len(take.episode) == 1 and take.episode.truncated[-1]


def test_the_action_is_recorded_as_it_was_executed(env, monkeypatch):
    """An arm's safety limits have the last word, and say it in info."""
    step = env.step

    def limited(action):
        *seen, info = step(0.5 * action)
        return *seen, {**info, "action": 0.5 * np.asarray(action, np.float64)}

    monkeypatch.setattr(env, "step", limited)
    episode = record(env, go(0.5, 0.25), go(-1, 0), go(0, 0, "end")).episode
    assert episode.actions.tolist() == [[0.25, 0.125], [-0.5, 0]] and episode.actions.dtype == np.float32


def test_what_could_not_be_read_back_is_not_recorded(env, monkeypatch):
    step = env.step

    def broken(action):
        seen, *rest = step(action)
        return {**seen, "proprio": seen["proprio"] * np.nan}, *rest

    monkeypatch.setattr(env, "step", broken)
    with pytest.raises(UserError, match="has NaN"):
        record(env, go(0.5))


@pytest.mark.parametrize("how", ["observation 'proprio' has NaN at step 3", "step 2: the camera has gone"])
def test_what_an_environment_breaks_off_is_kept_up_to_there(env, monkeypatch, how):
    step, made = env.step, []

    def broken(action):
        made.append(action)
        if len(made) == 3 and "camera" in how:
            raise RuntimeError("the camera has gone")
        seen, *rest = step(action)
        return {**seen, "proprio": seen["proprio"] * (np.nan if len(made) == 3 else 1)}, *rest

    monkeypatch.setattr(env, "step", broken)
    take = record(env, go(0.5), go(0.25), go(-0.5), go(0.5))
    assert take.episode.actions[:, 0].tolist() == [0.5, 0.25] and take.episode.truncated.tolist() == [False, True]
    assert take.error.startswith(how) and len(made) == 3
    take.episode.check(take.episode.spec)


def test_an_episode_that_waits_for_its_word_outlives_the_device(env):
    class Gone(Hand):
        def read(self):
            if not self.commands:
                raise UserError("the device has gone")
            return self.commands.pop(0)

    hand = Gone(NOTHING, NOTHING, *towards_the_target(env))
    take = Recorder(env, hand, CollectConfig(hz=1e6)).record(SEED)
    assert take.episode.succeeded and take.ending == ""
    with pytest.raises(UserError, match="has gone"):
        Recorder(env, hand, CollectConfig(hz=1e6)).record(SEED)


class Paced(gymnasium.Wrapper):
    """The fake environment as a real arm: a step takes a period, and the arm can be held."""

    paced = True
    unwrapped = property(lambda self: self)

    def __init__(self, env):
        super().__init__(env)
        self.log, self.ask, self.fault_at = [], None, None
        self.paused, self.moves = None, 0  # periods of a reset's way

    def reset(self, **how):
        if self.ask:
            self.ask("put it back")
        for _ in range(self.moves):
            self.log.append("held" if self.paused(0.0) else "moves")
        self.log.append("reset")
        return self.env.reset(**how)

    def step(self, action):
        if len(self.log) == self.fault_at:
            raise RobotFault("motor 3 is hot")
        self.log.append("step")
        return self.env.step(action)

    def hold(self):
        self.log.append("hold")


def by_hand(env, *commands, waits=None, **config):
    hand = Hand(*commands)
    recorder = Recorder(
        env, hand, CollectConfig(hz=1e6, **config), lambda observation, status: None, lambda: hand.stopped
    )
    recorder._clock.wait = lambda: waits.append(1)
    return recorder.record(SEED)


def test_a_real_arm_paces_the_steps_itself_and_is_held_between_them(env):
    arm, waits = Paced(env), []
    enter = go(0, 0, "end")
    take = by_hand(
        arm, NOTHING, enter, NOTHING, NOTHING, go(0.5), go(0.5), go(0, 0, "pause"), NOTHING, go(0, 0, "resume"), enter,
        waits=waits,
    )  # fmt: skip
    assert arm.log == ["reset", "step", "step", "hold", "hold", "step"] and len(take.episode) == 3
    assert len(waits) == 3  # for the person's word on the prompt, and twice while paused


def test_nothing_moves_when_a_person_stops_at_the_prompt(env):
    for commands in ([NOTHING, go(0, 0, "stop")], [NOTHING]):
        arm = Paced(env)
        take = by_hand(arm, *commands, waits=[])
        assert arm.log == [] and take.episode is None and take.ending == "stop"


def test_a_pause_is_no_answer_to_the_prompt(env):
    arm = Paced(env)
    by_hand(arm, go(0, 0, "pause"), go(0, 0, "pause"), go(0, 0, "stop"), waits=[])
    assert arm.log == []


def resets(arm, hand):
    """What was recorded, and what the arm did, of a reset of five periods."""
    recorder = Recorder(arm, hand, CollectConfig(hz=1e6), stop=lambda: hand.stopped)
    arm.ask, arm.moves = None, 5
    return recorder.record(SEED), arm.log


def test_an_arm_can_be_paused_and_stopped_while_it_is_reset(env):
    pause, resume = go(0, 0, "pause"), go(0, 0, "resume")
    _, log = resets(Paced(env), Hand(NOTHING, pause, NOTHING, resume, NOTHING, NOTHING))
    assert log[:6] == ["moves", "held", "held", "moves", "moves", "reset"]
    take, log = resets(Paced(env), Hand(NOTHING, go(0, 0, "stop"), NOTHING))
    assert log == ["moves"] and take == Take(None, "stop")
    take, log = resets(Paced(env), Hand())  # Ctrl-C
    assert log == [] and take == Take(None, "stop")


class Latching(Hand):
    """Latches a stop until "resume"."""

    latches, hold_reason = True, ""

    def read(self):
        command = super().read()
        if command.events:
            self.hold_reason = "stopped by a person" if "stop" in command.events else ""
        return command


def test_a_stop_that_the_page_latches_holds_a_reset(env):
    """It was not read until the reset had ended: the arm went on moving."""
    page = Latching(NOTHING, go(0, 0, "stop"), NOTHING, go(0, 0, "resume"), NOTHING, NOTHING)
    _, log = resets(Paced(env), page)
    assert log[:6] == ["moves", "held", "held", "moves", "moves", "reset"]


def test_what_an_arm_did_before_its_fault_is_kept(env):
    arm = Paced(env)
    arm.fault_at = 3
    take = by_hand(arm, go(0, 0, "end"), NOTHING, NOTHING, *[go(0.5)] * 9, waits=[])
    assert len(take.episode) == 2 and take.error == "step 2: motor 3 is hot" and take.episode.truncated[-1]
