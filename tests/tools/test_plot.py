import json
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from matplotlib.figure import Figure

from tools import plot

BLUE = np.array([0x00, 0x72, 0xB2])


def write_log(folder: Path, successes: list[int], evaluations: tuple = (), length: int = 10) -> Path:
    folder.mkdir(parents=True)
    records = []
    for number, success in enumerate(successes, start=1):
        common = {"kind": "episode", "env_steps": number * length, "updates": 0, "time_s": 1.0, "length": length}
        records.append({**common, "success": success, "return": 2.0 * success})
    records.append({"kind": "update", "env_steps": 1, "updates": 1, "stage": "online", "td_loss": 0.5})
    for env_steps, success in evaluations:
        interval = {"low": success - 0.1, "high": success + 0.2}
        records.append({"kind": "eval", "env_steps": env_steps, "success": success, "return": success, **interval})
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_running_mean_is_over_the_last_window_episodes(tmp_path):
    run = plot.read_run(write_log(tmp_path / "a", [0, 0, 0, 0, 1, 1, 1]))
    steps, success = run.running("success", window=6)
    assert steps.tolist() == [50, 60, 70]  # from the fifth episode on
    assert success.tolist() == pytest.approx([1 / 5, 2 / 6, 3 / 6])
    assert run.running("return", window=6)[1].tolist() == pytest.approx([2 / 5, 4 / 6, 6 / 6])


def test_a_run_that_still_goes_and_one_that_was_rewound_can_be_read(tmp_path, capsys):
    path = write_log(tmp_path / "a", [0, 1, 1]) / "log.jsonl"
    again = {"kind": "episode", "env_steps": 20, "success": 0, "return": 0.0}
    with open(path, "a") as file:
        file.write(json.dumps({**again, "env_steps": 15}) + "\n" + json.dumps(again) + '\n{"kind": "epi')
    run = plot.read_run(tmp_path / "a")
    assert [(e["env_steps"], e["success"]) for e in run.episodes] == [(10, 0), (15, 0), (20, 0)]
    assert capsys.readouterr().err == ""  # a last line without its end is normal


def test_a_damaged_line_is_counted_and_skipped(tmp_path, capsys):
    path = write_log(tmp_path / "a", [1, 1]) / "log.jsonl"
    lacking = '{"kind": "episode", "env_steps": 5}\n{"kind": "episode", "env_steps": 6, "success": null, "return": 0}\n'
    path.write_text('{"kind": "episode", "env_st\n' + lacking + '{"kind": [], "env_steps": 1}\n' + path.read_text())
    assert len(plot.read_run(tmp_path / "a").episodes) == 2
    assert capsys.readouterr().err == f"{path}: 4 lines could not be read\n"


def test_the_newest_of_two_evaluations_at_the_same_steps_counts(tmp_path):
    run = plot.read_run(write_log(tmp_path / "a", [1], ((0, 0.4), (100, 0.8), (100, 0.6))))
    steps, success = run.evaluated("success")
    assert steps.tolist() == [0, 100] and success.tolist() == [0.4, 0.6]


def test_a_group_has_a_thick_line_and_a_thin_one_for_each_run(tmp_path, monkeypatch):
    runs = [
        plot.read_run(write_log(tmp_path / f"{name}", [success] * 30, ((0, 0.4), (300, success))))
        for name, success in (("a", 0), ("b", 1), ("c", 1))
    ]
    drawn = {"line": [], "marker": []}
    axes = Figure().subplots()
    monkeypatch.setattr(
        axes, "plot", lambda x, y, style, **how: drawn["line" if style == "-" else "marker"].append((y, how))
    )
    plot.draw(axes, plot.looks(["Cal-QL"])["Cal-QL"], "Cal-QL", runs, "success", 20, 0.0)
    assert [(set(y), how["linewidth"]) for y, how in drawn["line"]] == [
        ({0}, 0.8),
        ({1}, 0.8),
        ({1}, 0.8),
        ({2 / 3}, 2.2),
    ]
    assert [list(y) for y, _ in drawn["marker"]][:3] == [[0.4, 0], [0.4, 1], [0.4, 1]]
    assert list(drawn["marker"][3][0]) == pytest.approx([0.4, 2 / 3])


def blue_rows(picture: np.ndarray) -> np.ndarray:
    """Rows of the left panel's curve area that have Cal-QL's colour."""
    panel = picture[30 : picture.shape[0] * 3 // 4, 90 : picture.shape[1] // 2]
    return np.flatnonzero((np.abs(panel.astype(int) - BLUE) < 12).all(-1).any(1))


def test_the_picture_shows_the_curves(tmp_path):
    good, bad = write_log(tmp_path / "good", [1] * 30), write_log(tmp_path / "bad", [0] * 30)
    for folder in (good, bad):
        plot.main(["--label", f"Cal-QL={folder}", "--title", "Lift", "--out", str(tmp_path / f"{folder.name}.png")])
    high, low = (blue_rows(iio.imread(tmp_path / f"{name}.png")[..., :3]) for name in ("good", "bad"))
    assert len(high) and len(low)
    assert high.max() < low.min()  # 100 % is above 0 %


def test_a_group_is_one_curve_and_the_command_says_what_it_wrote(tmp_path, command):
    for number, successes in enumerate(([1] * 30, [0] * 30)):
        write_log(tmp_path / f"calql-{number}", successes)
    out = tmp_path / "made" / "plot.png"
    done = command("plot", "--label", f"Cal-QL={tmp_path}/calql-*", "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["Cal-QL: success 0.50 over the last 20 episodes of each of 2 runs", str(out)]
    assert iio.imread(out).shape[1] > 800


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{tmp}/none"], "{tmp}/none/log.jsonl: No such file"),
        (["{tmp}/empty"], "{tmp}/empty/log.jsonl: no episodes"),
        (["--label", "x={tmp}/z*"], "nothing matches {tmp}/z*"),
        (["--label", "x"], "expected NAME=PATTERN"),
        ([], "name the runs"),
        (["{tmp}/good", "--out", "{tmp}/x.wrong"], "{tmp}/x.wrong: Format 'wrong' is not supported"),
        (["{tmp}/good", "--windw", "3"], "unknown flag --windw (did you mean '--window'?)"),
    ],
)
def test_what_cannot_be_plotted_is_one_line(tmp_path, arguments, says):
    write_log(tmp_path / "good", [1])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "log.jsonl").touch()
    with pytest.raises(plot.UserError) as error:
        plot.main([word.format(tmp=tmp_path) for word in arguments])
    assert says.format(tmp=tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_run_ends_the_command_with_exit_code_2(tmp_path, refused):
    assert str(tmp_path / "none") in refused("plot", tmp_path / "none")
