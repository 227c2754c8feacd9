import numpy as np
import pytest

from tools.common.curves import COLOURS, looks, mean, mean_points, people_say, task_in_words


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [("robot", "Cal-QL"), ("Cal-QL", "Cal-QL"), ("lift-calql-3", "Cal-QL"), ("CQL", "CQL"), ("cql_max_backup", "CQL"),
     ("runs/rlpd", "RLPD"), ("wsrl", "WSRL"), ("bc", "behaviour cloning"), ("paper_3000", "Cal-QL (paper)")],
)  # fmt: skip
def test_an_algorithm_has_its_colour_under_every_name_and_in_any_company(name, algorithm):
    assert looks([name])[name].colour == looks(["x", "no_clip", name])[name].colour == COLOURS[algorithm]


def test_no_two_curves_of_a_picture_look_alike():
    names = ["robot", "calql-0", "calql-1", "cql", "bc", "rlpd", "paper", *(f"p{number}" for number in range(15))]
    found = looks(names)
    assert list(found) == names and len(set(found.values())) == len(names)
    assert not {found[f"p{number}"].colour for number in range(15)} & set(COLOURS.values())


def test_names_are_those_that_people_say():
    said = {name: people_say(name) for name in ("robot", "cql_max_backup", "paper", "bc", "no_cloning_online")}
    assert said == {
        "robot": "Cal-QL", "cql_max_backup": "CQL, max backup", "paper": "Cal-QL (paper)",
        "bc": "behaviour cloning", "no_cloning_online": "no cloning online",
    }  # fmt: skip


def test_a_task_in_words():
    lift = {"task": "Lift", "cameras": ["agentview", "hand"], "image_size": 64}
    assert task_in_words("sim", lift) == "Lift from 2 cameras, 64 px"
    assert task_in_words("sim", lift | {"cameras": []}) == "Lift from states, without cameras"
    assert task_in_words("gym:gymnasium_robotics:AdroitHandDoor-v1", {}) == "Adroit Hand Door"


def test_a_mean_reaches_as_far_as_the_shortest_run():
    long, short = (np.array([0.0, 10, 20]), np.array([0.0, 1, 2])), (np.array([5.0, 15]), np.array([3.0, 3]))
    steps, values = mean([long, short])
    assert steps.tolist() == [5, 10, 15] and values.tolist() == [1.75, 2, 2.25]
    assert mean_points([long, short])[0].tolist() == [5, 10, 15]  # of unequal counts


def test_evaluations_at_slightly_other_steps_are_one_point():
    steps, values = mean_points(
        [(np.array([0.0, 98]), np.array([0.2, 0.4])), (np.array([0.0, 102]), np.array([0.4, 1.0]))]
    )
    assert steps.tolist() == [0, 100] and values == pytest.approx([0.3, 0.7])
