"""Cameras against their reference pictures: what is found, what is let pass, and the file in between."""

import re

import cv2
import numpy as np
import pytest

from envs.real import view_change
from envs.real.camera_reference import Reference, References, judge, load, reference_file, save
from envs.real.mock_camera_faults import moved, spoil
from envs.real.options import RealOptions

SIZE = 160
rng = np.random.default_rng(0)


def scene(seed, size=SIZE):
    """A desk: things of all sizes and colours on a surface that is brighter on one side."""
    draw = np.random.default_rng(seed)
    image = np.tile(np.linspace(90, 140, 2 * size)[None, :, None], (2 * size, 1, 3)).astype(np.uint8)
    for _ in range(60):
        corner, extent = draw.integers(0, 2 * size, 2), draw.integers(8, 60, 2)
        cv2.rectangle(image, corner.tolist(), (corner + extent).tolist(), draw.integers(20, 230, 3).tolist(), -1)
    return cv2.resize(cv2.GaussianBlur(image, (0, 0), 1.5), (size, size), interpolation=cv2.INTER_AREA)


def noisy(image, gain=1.0, sigma=2.0):
    return np.clip(gain * image + rng.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


def with_arm(image, at):
    """A striped thing that is now here, now there."""
    image = image.copy()
    for number in range(6):
        cv2.rectangle(image, (at + 4 * number, 10), (at + 4 * number + 2, 70), (240, 240, 240), -1)
    return image


@pytest.fixture(scope="module")
def references():
    made = {}
    for name, seed in (("front", 1), ("wrist", 2)):
        image = noisy(with_arm(scene(seed), 60))
        points = view_change.corners(image)
        made[name] = Reference(image, view_change.still(image, points, [noisy(with_arm(scene(seed), 64))]))
    return made


def seen(change=lambda image: image, arm=60, gain=1.0, seed=1):
    return noisy(change(with_arm(scene(seed), arm)), gain)


def test_corners_of_the_arm_are_left_out(references):
    corners = references["front"].corners
    inside = (corners[:, 0] > 57) & (corners[:, 0] < 90) & (corners[:, 1] > 7) & (corners[:, 1] < 74)
    every = view_change.corners(references["front"].image)
    assert len(corners) >= 40 and inside.sum() < 3
    assert ((every[:, 0] > 57) & (every[:, 0] < 90) & (every[:, 1] < 74)).sum() > 10


@pytest.mark.parametrize("gain", [0.85, 1.0, 1.15])
@pytest.mark.parametrize("arm", [40, 60, 75])
def test_a_normal_picture_passes(references, gain, arm):
    """Noise, other exposure, an arm that is not quite at home, a thing that was put elsewhere."""

    def elsewhere(image):
        image[100:120, 30:55] = image[20:40, 110:135].copy()
        return image

    finding = judge(references, "front", seen(elsewhere, arm, gain))
    assert finding.good, finding
    assert finding.says.startswith("shift 0.") and f"brightness {100 * gain:.0f} %" in finding.says


@pytest.mark.parametrize("gain", [0.9, 1.1])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda image: moved(image, right=2.0), r"has moved: .* 2\.\d px to the right"),
        (lambda image: moved(image, right=-5.0, down=3.0), r"[45]\.\d px to the left and [23]\.\d px down"),
        (lambda image: moved(image, down=-20.0), r"(19|20)\.\d px up"),
        (lambda image: moved(image, turned_deg=1.0), r"turned by (0\.9|1\.\d) deg clockwise"),
        (lambda image: moved(image, turned_deg=-30.0), r"turned by (29|30)\.\d deg anticlockwise"),
    ],
)
def test_a_camera_that_was_moved_is_found_with_how_far(references, change, says, gain):
    finding = judge(references, "front", seen(change, gain=gain))
    assert not finding.good and "put it back" in finding.remedy

    assert re.search(says, finding.says), finding.says


def test_a_large_picture_is_told_in_its_own_pixels():
    image = scene(5, 1200)
    reference = {"front": Reference(noisy(image), view_change.corners(image))}
    assert reference["front"].corners.max() > 800
    assert judge(reference, "front", noisy(image)).good
    assert judge(reference, "front", noisy(moved(image, right=4.0))).good  # 0.3 %
    found = re.search(
        r"(\d+\.\d) px to the right and (\d+\.\d) px down",
        judge(reference, "front", noisy(moved(image, 30.0, 12.0))).says,
    )
    assert [float(number) for number in found.groups()] == pytest.approx([30.0, 12.0], abs=0.3)


def test_one_that_came_nearer_is_found(references):
    def nearer(image):
        big = cv2.resize(image, None, fx=1.05, fy=1.05)
        margin = (big.shape[0] - SIZE) // 2
        return big[margin : margin + SIZE, margin : margin + SIZE]

    assert "% larger" in judge(references, "front", seen(nearer)).says


def test_light(references):
    dim, bright = (judge(references, "front", seen(gain=gain)) for gain in (0.5, 1.6))
    assert "brightness 50 % of the reference's" in dim.says and "exposure" in dim.remedy
    assert not bright.good and "of the reference's" in bright.says
    assert judge(references, "front", seen(gain=0.8)).good


@pytest.mark.parametrize("level", [0, 5, 90])
def test_a_covered_lens(references, level):
    assert "black or covered" in judge(references, "front", noisy(np.full((SIZE, SIZE, 3), level, np.uint8))).says


def test_half_of_the_view_is_hidden(references):
    def half(image):
        image[:, : 9 * SIZE // 20] = (230, 190, 170)  # a hand
        return image

    finding = judge(references, "front", seen(half))
    assert not finding.good and "% of its picture shows something else" in finding.says


def with_thing(column, row):
    """An almost empty desk; half of the corners are the thing's."""
    image = np.full((64, 64, 3), 190, np.uint8)
    for left, top in ((4, 2), (20, 5)):
        cv2.rectangle(image, (left, top), (left + 8, 10), (40, 60, 20), -1)
    cv2.rectangle(image, (column, row), (column + 12, row + 11), (200, 30, 30), -1)
    for stripe in range(3):
        cv2.rectangle(image, (column + 4 * stripe, row), (column + 4 * stripe + 1, row + 3), (20, 200, 20), -1)
    return noisy(image, sigma=1.0)


def test_a_thing_that_was_moved_in_an_empty_scene_is_no_motion_of_the_camera():
    image = with_thing(25, 40)
    reference = {"front": Reference(image, view_change.corners(image))}
    assert 12 <= len(reference["front"].corners) < 30
    for column, row in [(20, 38), (27, 43), (40, 25), (30, 40), (24, 35)]:
        finding = judge(reference, "front", with_thing(column, row))
        assert finding.good, finding
    assert not judge(reference, "front", moved(with_thing(27, 43), right=2.0)).good


def test_swapped_cameras_and_another_view(references):
    finding = judge(references, "front", seen(seed=2))
    assert "shows what camera 'wrist' showed: they are swapped" in finding.says and "by-id" in finding.remedy
    assert "another view" in judge(references, "front", seen(seed=3)).says


def test_another_size_or_no_reference(references):
    assert "sends 64 x 64 pixels, its reference has 160 x 160" in judge(references, "front", scene(1, 64)).says
    assert "no reference" in judge(references, "top", seen()).says


def test_a_picture_without_anything_that_stands_still_is_reported_as_unchecked():
    plain = np.full((SIZE, SIZE, 3), 120, np.uint8)
    plain[40:80, 40:80] = 30
    reference = {"front": Reference(noisy(plain), np.zeros((0, 2), np.float32))}
    finding = judge(reference, "front", noisy(plain))
    assert finding.good and "shift not checked" in finding.says
    assert not judge(reference, "front", noisy(plain, 0.5)).good


def test_the_file(references, tmp_path):
    path = tmp_path / "reference.npz"
    with open(path, "wb") as file:
        save(file, References(references, {"x": 0.25}, "2026-11-29 10:00"))
    read = load(path)
    assert read.lag == {"x": 0.25} and read.saved == "2026-11-29 10:00" and list(read.cameras) == ["front", "wrist"]
    for name, reference in references.items():
        assert np.array_equal(read.cameras[name].image, reference.image)
        assert np.array_equal(read.cameras[name].corners, reference.corners)
    assert load(tmp_path / "none.npz") is None
    whole = path.read_bytes()
    np.save(tmp_path / "array.npy", np.zeros(3))
    for wrong in (b"", whole[: len(whole) // 2], b"PK\x03\x04nonsense", (tmp_path / "array.npy").read_bytes()):
        path.write_bytes(wrong)
        with pytest.raises(ValueError, match=r"reference\.npz: not a file of reference pictures .*--save-reference"):
            load(path)
    with open(path, "wb") as file:
        save(file, References({"front": Reference(np.zeros((4, 4), np.uint8), np.zeros((0, 2)))}))
    with pytest.raises(ValueError, match="malformed"):
        load(path)


def test_where_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    one, other = (RealOptions("lerobot:so101", {"port": port}) for port in ("/dev/a", "/dev/b"))
    assert reference_file(one).parent == tmp_path / "calql" and reference_file(one).name.startswith("lerobot-so101-")
    assert reference_file(one) == reference_file(RealOptions("lerobot:so101", {"port": "/dev/a"}, control_hz=20.0))
    assert reference_file(one) != reference_file(other)
    assert reference_file(RealOptions(camera_reference=str(tmp_path / "mine.npz"))) == tmp_path / "mine.npz"


def test_faults_of_the_mock_cameras(references):
    images = {name: reference.image for name, reference in references.items()}
    faults = {
        "move:front": "px to the right",
        "rotate:front": "clockwise",
        "dim:front": "brightness 50 %",
        "cover:front": "covered",
        "swap": "swapped",
    }
    for fault, says in faults.items():
        shown = spoil(images, lambda name, fault=fault: name == fault)
        assert says in judge(references, "front", shown["front"]).says
        assert judge(references, "wrist", shown["wrist"]).good == (fault != "swap")
    assert all(np.array_equal(image, images[name]) for name, image in spoil(images, lambda name: False).items())


def test_whatever_is_damaged_in_the_file_is_one_line(references, tmp_path):
    """A byte that is another one, anywhere: a fault of the file, or of nothing that is looked at."""
    path, draw = tmp_path / "reference.npz", np.random.default_rng(3)
    with open(path, "wb") as file:
        small = {"front": Reference(references["front"].image[:24, :24], np.ones((3, 2)))}
        save(file, References(small, {"x": 0.25}, "2026-11-29 10:00"))
    whole, refused = path.read_bytes(), 0
    for _ in range(400):
        data = bytearray(whole)
        data[draw.integers(len(data))] ^= 1 << int(draw.integers(8))
        path.write_bytes(data)
        try:
            load(path)
        except ValueError as error:
            assert "\n" not in str(error) and "--save-reference" in str(error)
            refused += 1
    assert refused > 200
