"""That the check of two learners that share a robot would notice a stray episode."""

from types import SimpleNamespace

import numpy as np
import pytest

from tools.common.report import Report
from tools.stress.reset_policy import BACK, TASK, add_figures


def episode(number, back, begin=0.0, end=0.0):
    meta = {"number": number, "env": {"options": {"reset_task": True} if back else {}}}
    return SimpleNamespace(meta=meta, observations={"proprio": np.array([[begin, 0.0], [end, 0.0]], np.float32)})


def arrived():
    return {
        TASK: [episode(number, False, end=number) for number in range(2)],
        BACK: [episode(number, True, begin=number + 0.25) for number in range(2)],
    }


def test_each_learner_has_its_own():
    report = Report("")
    assert add_figures(report, arrived(), 2)
    assert [figure.value for figure in report.figures] == [2, 0, 2, 0, 0.25]
    assert all(figure.met in (True, None) for figure in report.figures)


@pytest.mark.parametrize("wrong", [[episode(0, False), episode(1, True)], [episode(0, False)] * 2, [episode(0, False)]])
def test_one_of_the_other_one_twice_and_one_that_is_missing_are_noticed(wrong):
    report = Report("")
    assert not add_figures(report, {**arrived(), TASK: wrong}, 2)
    assert not all(figure.met in (True, None) for figure in report.figures)
