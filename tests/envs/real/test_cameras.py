"""Cameras: the newest frame at once, or an error that says why there is none; readers that come back by themselves."""

import sys
import threading
import time
import types

import cv2
import numpy as np
import pytest

from envs.real import camera_sources, cameras
from envs.real.camera_options import CameraOptions, parse
from envs.real.cameras import Camera, CameraError

HEIGHT, WIDTH = 24, 32
FAST = {"width": WIDTH, "height": HEIGHT, "size": 16, "fps": 100, "max_age_s": 0.25, "frozen_s": 0.3}


class Scripted:
    """A source at 100 fps that does what `mode` says from the next read on."""

    def __init__(self):
        self.mode, self.opens, self.closes, self.reads = "good", 0, 0, 0
        self.released = threading.Event()  # lets a hanging read go
        self.noise = np.random.default_rng(0)
        self.dark = 0  # frames after opening

    def open(self):
        self.opens += 1
        if self.mode == "unplugged":
            raise OSError("no such device")
        if self.mode == "hangs":
            self.released.wait()
        if self.mode == "wrong option":
            raise ValueError("device 7 is not there")
        self.darkness = self.dark

    def read(self):
        self.reads += 1
        time.sleep(0.01)
        if self.mode in ("raises", "unplugged"):
            raise OSError("the bus was reset\nand more of that")
        if self.mode == "hangs":
            self.released.wait()
        if self.mode == "slow":
            time.sleep(0.1)
        if self.mode == "wrong shape":
            return np.zeros((HEIGHT // 2, WIDTH, 3), np.uint8)
        if self.mode == "grey":
            return np.zeros((HEIGHT, WIDTH), np.uint8)
        if self.mode == "frozen":
            return np.full((HEIGHT, WIDTH, 3), 99, np.uint8)
        if self.darkness:
            self.darkness -= 1
            return np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        return self.noise.integers(100, 200, (HEIGHT, WIDTH, 3), np.uint8)

    def close(self):
        self.closes += 1


@pytest.fixture
def made(monkeypatch):
    """made(script, **options): a Camera that is closed after the test; reopening does not wait for long."""
    monkeypatch.setattr(cameras, "RETRY_S", 0.02)
    monkeypatch.setattr(cameras, "LONGEST_RETRY_S", 0.1)
    every = []

    def make(script=None, **options):
        camera = Camera("wrist", CameraOptions(**{**FAST, "warmup_frames": 0, **options}), script)
        every.append((camera, script))
        return camera

    yield make
    for camera, source in every:
        if isinstance(source, Scripted):
            source.mode = "good"
            source.released.set()
        camera.close()


def until(condition, seconds=3.0):
    """What the condition returned once it was true."""
    end = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.005)
    return answer


def refusal(camera):
    """What read() raises, or ''."""
    try:
        camera.read()
    except CameraError as error:
        assert "\n" not in str(error) and str(error).startswith("camera 'wrist': ")
        return str(error)
    return ""


def test_a_frame_is_new_numbered_and_stamped_on_arrival(made):
    camera = made(Scripted())
    began = time.monotonic()
    camera.start()
    first = camera.read()
    assert first.image.shape == (16, 16, 3) and first.image.dtype == np.uint8
    assert began < first.time_s <= time.monotonic() and first.number >= 1
    kept = first.image.copy()
    later = until(lambda: (frame := camera.read()).number > first.number + 3 and frame)
    assert later.time_s > first.time_s and later.image is not first.image
    assert np.array_equal(first.image, kept)
    assert camera.frames >= later.number and camera.drops == camera.reconnects == 0


def test_read_does_not_wait_for_a_slow_camera(made):
    source = Scripted()
    camera = made(source, max_age_s=2.0)
    camera.start()
    source.mode = "slow"
    reads, began = 0, time.monotonic()
    while time.monotonic() < began + 0.3:
        camera.read()
        reads += 1
    assert reads > 300  # ten a second if it waited


def test_crop_then_size_then_rgb(made):
    class Quadrants(Scripted):
        def read(self):
            frame = super().read() // 100
            frame[4:12, 8:24] = (250, 10, 60)  # BGR
            return frame

    camera = made(Quadrants(), crop=[4, 8, 8, 16], size=8)
    camera.start()
    assert (camera.read().image == (60, 10, 250)).all()
    whole = made(Quadrants(), crop=[], size=8)
    whole.start()
    assert whole.read().image[0, 0].max() < 10  # outside


def test_area_interpolation_averages(made):
    class Stripes(Scripted):
        def read(self):
            frame = super().read() // 100
            frame[::2] = 200
            return frame

    camera = made(Stripes(), crop=[0, 0, 16, 16], size=8)
    camera.start()
    assert 95 < camera.read().image.min() <= camera.read().image.max() < 105


def test_dark_first_frames_are_not_shown_also_after_a_reconnect(made):
    source = Scripted()
    source.dark = 5
    camera = made(source, warmup_frames=5, max_age_s=2.0)
    camera.start()
    assert camera.read().image.min() >= 100 and source.reads >= 6
    source.mode = "raises"
    until(lambda: camera.reconnects)
    before, seen = camera.frames, []
    source.mode = "good"
    until(lambda: seen.append(camera.read().image.min()) or camera.frames > before + 10)
    assert min(seen) >= 100
    dark = made(source := Scripted(), max_age_s=2.0)
    source.dark = 5
    dark.start()
    assert dark.read().number < 5 and dark.read().image.max() == 0  # the frames above were dark indeed


def test_a_hanging_driver_is_stale_and_comes_back(made):
    source = Scripted()
    camera = made(source)
    camera.start()
    source.mode = "hangs"
    said = until(lambda: refusal(camera))
    assert "s old, more than max_age_s 0.25" in said and "its driver has not answered for 0." in said
    source.mode = "good"
    source.released.set()
    until(lambda: not refusal(camera))


def test_one_failed_read_is_a_drop_and_no_outage(made):
    source = Scripted()
    fails = iter([False] * 5 + [True] + [False] * 10_000)
    whole = source.read

    def read():
        if next(fails):
            raise OSError("lost")
        return whole()

    source.read = read
    camera = made(source)
    camera.start()
    until(lambda: camera.frames > 20)
    assert (camera.drops, camera.reconnects, source.opens) == (1, 0, 1)
    until(lambda: not refusal(camera))


@pytest.mark.parametrize("mode", ["raises", "unplugged"])
def test_a_failing_camera_is_opened_again_until_it_is_back(made, mode, caplog):
    source = Scripted()
    camera = made(source)
    camera.start()
    before = camera.read().number
    source.mode = mode
    said = until(lambda: refusal(camera))
    until(lambda: source.opens >= 4)
    assert "no such device" in said if mode == "unplugged" else "the bus was reset and more" in said
    assert refusal(camera)  # all the while
    source.mode = "good"
    until(lambda: not refusal(camera))
    assert camera.read().number > before
    assert camera.drops >= 3 and camera.reconnects >= 1 and source.closes >= source.opens - 1
    said = [record.message for record in caplog.records]
    assert len(said) == 2 and "opened again" in said[0] and "is back" in said[1], said


def test_opening_again_backs_off(made, monkeypatch):
    monkeypatch.setattr(cameras, "LONGEST_RETRY_S", 10.0)
    source = Scripted()
    camera = made(source)
    camera.start()
    source.mode = "unplugged"
    until(lambda: source.opens >= 2)
    time.sleep(0.6)
    assert source.opens <= 7  # 0.02, 0.06, 0.14, 0.30, 0.62 s after the first; thirty without
    until(lambda: source.opens >= 5)


def test_a_frozen_camera_is_refused_opened_again_and_recovers(made):
    source = Scripted()
    camera = made(source)
    camera.start()
    source.mode = "frozen"
    said = until(lambda: refusal(camera))
    assert "frozen, the same to the last byte for" in said and "max_age_s" not in said
    until(lambda: source.opens >= 3)
    for _ in range(20):  # opened again, and still the same picture
        assert refusal(camera)
        time.sleep(0.005)
    source.mode = "good"
    until(lambda: not refusal(camera))


def test_one_changed_byte_is_no_freeze_and_the_check_can_be_off(made):
    class Nearly(Scripted):
        def read(self):
            frame = super().read() * 0
            frame[13, 7, 1] = self.reads % 2  # in no row of the sparse comparison
            return frame

    alive, off = made(Nearly(), max_age_s=2.0), made(still := Scripted(), max_age_s=2.0, frozen_s=0)
    still.mode = "frozen"
    cameras.start_all([alive, off])
    end = time.monotonic() + 0.8
    while time.monotonic() < end:
        assert not refusal(alive) and not refusal(off)
        time.sleep(0.01)


@pytest.mark.parametrize("mode, words", [("wrong shape", "32 x 12 pixels, not 32 x 24"), ("grey", "uint8 (24, 32)")])
def test_wrong_frames_are_never_shown(made, mode, words):
    source = Scripted()
    camera = made(source)
    camera.start()
    source.mode = mode
    assert words in until(lambda: refusal(camera))
    source.mode = "good"
    until(lambda: not refusal(camera))
    source.mode = mode
    with pytest.raises(ValueError, match=r"wrist.* it sends"):
        made(source).start()


def test_start_says_why_there_is_no_frame(made):
    for mode, cause in {
        "hangs": "has not answered for",
        "raises": "the bus was reset and",
        "unplugged": "no such",
    }.items():
        source = Scripted()
        source.mode = mode
        camera = made(source)
        with pytest.raises(ValueError, match=f"camera 'wrist': no frame within 0.3 s: .*{cause}"):
            camera.start(0.3)
        source.released.set()
        until(lambda camera=camera: not camera.thread.is_alive())
    source = Scripted()
    source.mode = "wrong option"
    began = time.monotonic()
    with pytest.raises(ValueError, match="camera 'wrist': device 7 is not there"):
        made(source).start(30.0)
    assert time.monotonic() < began + 5  # at once


def test_a_device_that_appears_while_start_waits_is_taken(made):
    source = Scripted()
    source.mode = "unplugged"
    camera = made(source)
    threading.Timer(0.2, setattr, (source, "mode", "good")).start()
    camera.start(5.0)
    assert camera.read().number and camera.reconnects == 0


def test_start_all_closes_all_when_one_fails(made):
    good, bad = Scripted(), Scripted()
    bad.mode = "raises"
    first, second = made(good), made(bad)
    with pytest.raises(ValueError, match="the bus was reset"):
        cameras.start_all([first, second], 0.4)
    assert not first.thread.is_alive() and not second.thread.is_alive() and good.closes == 1


def test_before_start_and_after_close(made):
    source = Scripted()
    camera = made(source)
    assert "was not started" in refusal(camera)
    camera.start()
    camera.close()
    camera.close()
    assert source.closes == 1 and not camera.thread.is_alive()
    assert "is closed" in refusal(camera)
    with pytest.raises(ValueError, match="is closed; make a new one"):
        camera.start()


def test_close_leaves_a_driver_that_hangs_and_says_so(made, caplog):
    source = Scripted()
    camera = made(source)
    camera.start()
    source.mode = "hangs"
    until(lambda: refusal(camera))
    began = time.monotonic()
    camera.close(0.2)
    assert time.monotonic() < began + 2 and camera.thread.is_alive() and camera.thread.daemon
    assert "camera 'wrist': its driver does not return" in caplog.text
    source.released.set()
    until(lambda: not camera.thread.is_alive())
    assert source.closes == 1  # by its own thread, once the driver let go of it


def test_defaults_are_good_and_keys_are_known():
    assert parse("wrist", {}) == CameraOptions()
    assert parse("wrist", {"crop": [0, 80, 480, 480], "device": "/dev/v4l/by-id/x"}).crop == [0, 80, 480, 480]
    with pytest.raises(ValueError, match=r"camera 'wrist': widht: no such option \(did you mean 'width'\?\)"):
        parse("wrist", {"widht": 640})


@pytest.mark.parametrize(
    "bad",
    [
        {"source": "v4l"},
        {"source": None},
        {"device": ""},
        {"device": 1.5},
        {"width": 0},
        {"height": "480"},
        {"size": 12.5},
        {"size": 100_000},
        {"fps": float("nan")},
        {"fps": True},
        {"crop": [0, 0, 480]},
        {"crop": [0, 0, 481, 10]},
        {"crop": [0, 600, 10, 41]},
        {"crop": [0, 0, 0, 10]},
        {"crop": [-1, 0, 10, 10]},
        {"crop": 5},
        {"exposure": 0},
        {"exposure": "auto"},
        {"max_age_s": 0.03},
        {"warmup_frames": -1},
        {"frozen_s": -1.0},
        {"fourcc": "MJPEG"},
    ],
    ids=str,
)
def test_bad_values_are_one_line_with_camera_and_key(bad):
    with pytest.raises(ValueError, match=f"^camera 'wrist': {next(iter(bad))} is .*; it must be [^\n]+$"):
        parse("wrist", bad)


@pytest.fixture
def video(tmp_path):
    """Ten noisy frames at 50 fps whose brightness grows."""
    path, noise = tmp_path / "wrist.avi", np.random.default_rng(1)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 50, (64, 48))
    for number in range(10):
        writer.write(noise.integers(20 * number, 20 * number + 20, (48, 64, 3), np.uint8))
    writer.release()
    return path


def test_a_video_plays_at_its_rate_and_over_again(made, video):
    camera = made(source="file", device=str(video), width=64, height=48, fps=5)
    began = time.monotonic()
    camera.start()
    seen = []
    while camera.frames < 25:
        seen.append(camera.read())
        time.sleep(0.002)
    assert 0.3 < time.monotonic() - began < 2.5  # 5 s at 5 fps
    assert camera.drops == camera.reconnects == 0
    bright = [frame.number for frame in seen if frame.image.mean() > 150]
    assert any(frame.image.mean() < 60 and frame.number > bright[0] for frame in seen)


def test_a_folder_of_images_plays_too(made, tmp_path):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((HEIGHT, WIDTH, 3), (0, 0, 50 * (number + 1)), np.uint8))
    camera = made(source="file", device=str(tmp_path), fps=50)
    camera.start()
    seen = set()
    until(lambda: seen.add(tuple(camera.read().image[0, 0])) or len(seen) == 3)
    assert seen == {(50, 0, 0), (100, 0, 0), (150, 0, 0)}
    assert not refusal(camera)


def test_files_that_cannot_be_played_are_one_line(made, tmp_path, video):
    (tmp_path / "text.avi").write_text("no video")
    (tmp_path / "empty").mkdir()
    for path, words in {"nothing.mp4": "is not there", "text.avi": "is not a video", "empty": "holds no image"}.items():
        with pytest.raises(ValueError, match=f"camera 'wrist': device .*{path} {words}"):
            made(source="file", device=str(tmp_path / path)).start()
    with pytest.raises(ValueError, match="it sends 64 x 48 pixels, not 32 x 24: set width and height"):
        made(source="file", device=str(video)).start()


class FakeCapture:
    """cv2.VideoCapture of a V4L2 camera: calls in order, and a driver that may refuse."""

    def __init__(self, path, backend):
        self.path, self.backend, self.released = path, backend, False
        self.calls, self.values, self.refused, self.opened = [], {}, set(), True
        FakeCapture.last = self

    def isOpened(self):
        return self.opened

    def set(self, key, value):
        self.calls.append((key, value))
        if key not in self.refused and (key, value) not in self.refused:
            self.values[key] = value
            return True
        return False

    def get(self, key):
        return self.values.get(key, 0.0)

    def read(self):
        return True, np.random.default_rng(len(self.calls)).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)

    def release(self):
        self.released = True


@pytest.fixture
def v4l2(monkeypatch, tmp_path):
    """v4l2(refused, **options): a V4L2 source on a fake driver that refuses so, opened."""
    node = tmp_path / "video0"
    node.touch()

    def opened(refused=(), **options):
        def capture(path, backend):
            made = FakeCapture(path, backend)
            made.refused = set(refused)
            return made

        monkeypatch.setattr(cv2, "VideoCapture", capture)
        source = camera_sources.V4L2("wrist", CameraOptions(**{**FAST, "device": str(node), **options}))
        source.open()
        return source

    return opened


def test_v4l2_sets_the_format_first_and_the_exposure_last(v4l2, caplog):
    source = v4l2(exposure=156)
    capture = FakeCapture.last
    assert (capture.path, capture.backend) == (source.path, cv2.CAP_V4L2)
    assert capture.calls == [
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
        (cv2.CAP_PROP_FRAME_WIDTH, WIDTH),
        (cv2.CAP_PROP_FRAME_HEIGHT, HEIGHT),
        (cv2.CAP_PROP_FPS, 100),
        (cv2.CAP_PROP_BUFFERSIZE, 1),
        (cv2.CAP_PROP_AUTO_EXPOSURE, 1),
        (cv2.CAP_PROP_EXPOSURE, 156),
    ]
    assert source.read().shape == (HEIGHT, WIDTH, 3) and not caplog.records
    source.close()
    assert capture.released


def test_v4l2_turns_automatic_exposure_on_where_a_program_before_left_it_off(v4l2):
    v4l2()
    assert FakeCapture.last.calls[-1] == (cv2.CAP_PROP_AUTO_EXPOSURE, 3)
    v4l2([(cv2.CAP_PROP_AUTO_EXPOSURE, 3)])
    assert FakeCapture.last.calls[-1] == (cv2.CAP_PROP_AUTO_EXPOSURE, 0)


@pytest.mark.parametrize(
    "refused, words",
    [
        (cv2.CAP_PROP_EXPOSURE, "exposure 156 did not take; the driver answers 0 in mode 1"),
        (cv2.CAP_PROP_AUTO_EXPOSURE, "exposure 156 did not take; the driver answers 156 in mode 0, not 1"),
        (cv2.CAP_PROP_FOURCC, "fourcc MJPG did not take"),
        (cv2.CAP_PROP_FPS, "fps 100 did not take; the driver answers 0"),
    ],
)
def test_v4l2_says_what_did_not_take(v4l2, caplog, refused, words):
    v4l2([refused], exposure=156)
    said = [record.message for record in caplog.records]
    assert len(said) == 1 and said[0].startswith(f"camera 'wrist': {words}") and "\n" not in said[0]


def test_v4l2_without_its_device_is_one_line_with_the_remedy(made, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="camera 'wrist': device /dev/video97 is not there"):
        made(device=97).start()
    node = tmp_path / "video0"
    node.touch()
    monkeypatch.setattr(camera_sources.os, "access", lambda *_: False)
    with pytest.raises(ValueError, match=r"camera 'wrist': no permission for .*video0: .*usermod -aG video \$USER"):
        made(device=str(node)).start()
    monkeypatch.undo()
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: closed)
    closed = FakeCapture("", 0)
    closed.opened = False
    with pytest.raises(ValueError, match=r"no frame within 0.2 s: .*another process has it"):
        made(device=str(node)).start(0.2)


def test_v4l2_names_devices_by_number_and_by_path():
    paths = {0: "/dev/video0", "2": "/dev/video2", "/dev/v4l/by-id/usb": "/dev/v4l/by-id/usb"}
    for device, path in paths.items():
        assert camera_sources.V4L2("wrist", CameraOptions(device=device)).path == path


class FakeRealSense:
    """The module pyrealsense2 with one device: a stereo module, and a colour sensor that takes options, or not."""

    class stream:
        color, depth = "color", "depth"

    def __init__(self, serials=("123",), refuses=False):
        self.serials, self.refuses, self.said, self.options = serials, refuses, [], {}
        self.format = self.option = self.camera_info = types.SimpleNamespace(
            bgr8="bgr8", exposure="exposure", enable_auto_exposure="auto", serial_number="serial"
        )
        self.buffer = np.zeros((HEIGHT, WIDTH, 3), np.uint8)

    def context(self):
        devices = [types.SimpleNamespace(get_info=lambda _, serial=serial: serial) for serial in self.serials]
        return types.SimpleNamespace(query_devices=lambda: devices)

    def config(self):
        return types.SimpleNamespace(
            enable_device=lambda serial: self.said.append(serial),
            enable_stream=lambda *asked: self.said.append(asked),
        )

    def pipeline(self):
        frames = types.SimpleNamespace(get_color_frame=lambda: types.SimpleNamespace(get_data=lambda: self.buffer))
        return types.SimpleNamespace(
            start=lambda config: types.SimpleNamespace(get_device=lambda: self),
            wait_for_frames=lambda timeout_ms: frames,
            stop=lambda: self.said.append("stop"),
        )

    def query_sensors(self):
        def sensor(kind):
            def set_option(option, value):
                if self.refuses:
                    raise RuntimeError("out of range")
                self.options[(kind, option)] = value

            profiles = [types.SimpleNamespace(stream_type=lambda: kind)]
            return types.SimpleNamespace(get_stream_profiles=lambda: profiles, set_option=set_option)

        return [sensor("depth"), sensor("color")]


@pytest.fixture
def realsense(monkeypatch):
    def opened(fake, **options):
        monkeypatch.setitem(sys.modules, "pyrealsense2", fake)
        source = camera_sources.RealSense("wrist", CameraOptions(**{**FAST, "source": "realsense", **options}))
        source.open()
        return source

    return opened


def test_realsense_asks_for_colour_and_copies_the_drivers_buffer(realsense):
    fake = FakeRealSense()
    source = realsense(fake, exposure=80)
    assert fake.said == ["123", ("color", WIDTH, HEIGHT, "bgr8", 100)]
    assert fake.options == {("color", "auto"): 0.0, ("color", "exposure"): 80}
    frame = source.read()
    fake.buffer[:] = 7
    assert not frame.any()
    source.close()
    source.close()
    assert fake.said[-1] == "stop" and fake.said.count("stop") == 1


def test_realsense_says_what_is_wrong(realsense, caplog):
    realsense(FakeRealSense(refuses=True), exposure=80)
    assert [record.message for record in caplog.records] == ["camera 'wrist': exposure 80 did not take: out of range"]
    for fake, device, words in [
        (None, 0, "pip install pyrealsense2"),
        (FakeRealSense(["1", "2"]), 0, "device 0 means the only RealSense; set device to one of 1, 2"),
        (FakeRealSense(["1"]), "77", "no RealSense has the serial number 77; set device to one of 1"),
        (FakeRealSense([]), "77", "device 77: no RealSense is plugged in"),
    ]:
        with pytest.raises(ValueError, match=words):
            realsense(fake, device=device)
    assert realsense(FakeRealSense(["1", "2"]), device=2)
