import contextlib
import copy
import string

import hypothesis.extra.numpy as hnp
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from link_data import PULL

from agent.spec import STEP_FIELDS, Transition, UserError
from agent.wire import arrays, messages, schema
from agent.wire.bad_messages import Faults, shown
from agent.wire.messages import (
    ProtocolError,
    WireError,
    check_address,
    episode_name,
    pack,
    pack_step,
    read_step,
    unpack,
)

KEY = ("robot", "ab12", 3)
named_arrays = st.dictionaries(
    st.text(min_size=1, max_size=20),
    st.sampled_from(sorted(arrays.DTYPES)).flatmap(
        lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
    ),
    max_size=4,
)


@settings(max_examples=100, deadline=None)
@given(named_arrays, st.integers(0, 2**63 - 1))
def test_arrays_come_back_bit_equal_and_read_only(given_arrays, version):
    message = unpack(pack("WEIGHTS", given_arrays, version=version))
    assert message.kind == "WEIGHTS" and message.fields == {"version": version}
    assert list(message.arrays) == list(given_arrays)
    for name, array in given_arrays.items():
        back = message.arrays[name]
        assert back.dtype == array.dtype and back.shape == array.shape
        assert back.tobytes() == array.tobytes()
        assert not back.flags.writeable


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(
    reward=st.floats(width=32, allow_nan=False),
    flags=st.tuples(*[st.booleans()] * 4),
    version=st.integers(0, 2**63 - 1),
    step=st.integers(0, 10**9),
    times=st.tuples(*[st.floats(0, 4e9)] * 3),
    meta=st.dictionaries(st.text(max_size=5), json_values, max_size=3),
)
def test_a_transition_comes_back(reward, flags, version, step, times, meta):
    terminated, truncated, success, intervention = flags
    observation = {"front": np.arange(48, dtype=np.uint8).reshape(4, 4, 3), "state": np.arange(2, dtype=np.float32)}
    final = {key: value + 1 for key, value in observation.items()} if terminated or truncated else None
    action = np.array([0.5, -1], np.float32)
    sent = Transition(observation, action, reward, terminated, truncated, success, version, intervention, *times, final)
    message = unpack(pack_step(KEY, step, sent, meta))
    assert (message.fields["step"], message.fields["meta"]) == (step, meta)
    assert (message.fields["robot"], message.fields["boot"], message.fields["episode"]) == KEY
    back = read_step(message)
    for name in STEP_FIELDS.values():
        assert getattr(back, name) == getattr(sent, name), name
    np.testing.assert_array_equal(back.action, action)
    for mine, theirs in ((observation, back.observation), (final or {}, back.final_observation or {})):
        assert mine.keys() == theirs.keys()
        for key in mine:
            np.testing.assert_array_equal(mine[key], theirs[key])


VALUES = {
    str: st.text(max_size=30),
    int: st.integers(0, 2**63 - 1),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    list: st.lists(st.text(max_size=5), max_size=3),
    dict: st.dictionaries(st.text(max_size=5), json_values, max_size=3),
}
NAMES = st.from_regex(schema.NAME, fullmatch=True)
OUTBOX = st.lists(st.tuples(NAMES, NAMES, VALUES[int], VALUES[int]).map(list), max_size=4)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from(sorted(schema.KINDS)), named_arrays)
def test_every_kind_comes_back_field_by_field(data, kind, given_arrays):
    special = {"robot": NAMES, "boot": NAMES, "outbox": OUTBOX, "have": st.integers(-1, 2**63 - 1)}
    fields = {name: data.draw(special.get(name, VALUES.get(of))) for name, of in schema.KINDS[kind].items()}
    message = unpack([memoryview(bytes(frame)) for frame in pack(kind, given_arrays, **fields)])
    assert (message.kind, message.fields) == (kind, fields)
    assert {name: array.tobytes() for name, array in message.arrays.items()} == {
        name: array.tobytes() for name, array in given_arrays.items()
    }


anything = st.recursive(
    json_values | st.binary(max_size=9) | st.integers(-(2**63), 2**64 - 1) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.binary(max_size=3) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from(sorted(schema.KINDS)), st.lists(st.binary(max_size=20), max_size=3))
def test_any_header_with_any_frames_is_a_message_or_a_wire_error(data, kind, bodies):
    """The right names, and whatever msgpack can say behind them: what passes is as declared."""
    names = [*schema.KINDS[kind], *data.draw(st.lists(st.text(max_size=5), max_size=1))]
    fields = {name: data.draw(anything) for name in names}
    right = [[f"a{n}", "uint8", [len(body)]] for n, body in enumerate(bodies)]
    declared = data.draw(st.just(right) | anything)
    if data.draw(st.booleans()):
        declared = msgpack.packb(declared)
        bodies = [
            arrays.read_layout(msgpack.packb(right)).join(
                {str(n): np.frombuffer(b, np.uint8) for n, b in enumerate(bodies)}
            )
        ]
    try:
        message = unpack([msgpack.packb({"v": messages.PROTOCOL, "kind": kind, **fields, "arrays": declared}), *bodies])
        read_step(message)
    except WireError:
        return
    assert {name: type(value) for name, value in message.fields.items()} == schema.KINDS["STEP"]


@pytest.mark.parametrize("text", ["two\nlines", "\x1b[2J", "\u202e"])
def test_what_is_shown_of_strangers_words_is_one_short_line(text):
    assert shown(text).isprintable() and len(shown(text)) == len(text) and len(shown(text * 1000)) == 500


def test_maps_and_reports_have_their_limits():
    good = {"robot": "r", "boot": "b", "spec": {}, "env": {}, "outbox": []}
    for field, fits, too_much in (
        ("env", {"a": "x" * (schema.MAX_MAP_BYTES - 10)}, {"a": "x" * schema.MAX_MAP_BYTES}),
        ("outbox", [["r", "b", 0, 0]] * schema.MAX_REPORTED, [["r", "b", 0, 0]] * (schema.MAX_REPORTED + 1)),
    ):
        assert unpack(pack("HELLO", **{**good, field: fits})).fields[field] == fits
        with pytest.raises(WireError, match=field):
            pack("HELLO", **{**good, field: too_much})


def test_a_sender_may_reuse_its_arrays():
    array = np.zeros((4, 4), np.float32)
    frames = pack("WEIGHTS", {"w": array}, version=1)
    array[:] = 7
    np.testing.assert_array_equal(unpack(frames).arrays["w"], 0)


def test_arrays_lie_in_one_frame_each_at_a_multiple_of_8():
    given_arrays = {"a": np.ones(3, np.uint8), "b": np.ones(3, np.float64), "c": np.ones((), np.bool_)}
    head, body = pack("WEIGHTS", given_arrays, version=1)
    assert len(body) == 8 + 24 + 1
    first = unpack([head, body]).arrays["a"].ctypes.data
    assert [array.ctypes.data - first for array in unpack([head, body]).arrays.values()] == [0, 8, 32]


@pytest.mark.parametrize(
    "array", [np.arange(12, dtype=">i4").reshape(3, 4), np.arange(24, dtype=np.int32).reshape(4, 6)[::2, ::3].T]
)
def test_odd_layouts_arrive_as_they_look(array):
    np.testing.assert_array_equal(unpack(pack("WEIGHTS", {"w": array}, version=1)).arrays["w"], array)


@pytest.mark.parametrize("array", [np.array(["text"]), np.array([None]), np.array([1j]), np.array(["2020"], "M8[s]")])
def test_pack_refuses_dtypes_that_are_not_numbers(array):
    with pytest.raises(WireError, match="dtype"):
        pack("WEIGHTS", {"w": array}, version=1)


def header(**changes):
    good = {"v": messages.PROTOCOL, "kind": "WEIGHTS", "version": 1, "arrays": [["w", "float32", [2, 2]]]}
    made = {name: value for name, value in {**good, **changes}.items() if value is not ...}
    return {name: msgpack.packb(value) if name == "arrays" else value for name, value in made.items()}


def frames(head, *bodies):
    return [head if isinstance(head, bytes) else msgpack.packb(head), *(bodies or (bytes(16),))]


def test_the_header_that_the_bad_ones_are_made_from_is_good():
    assert unpack(frames(header())).arrays["w"].shape == (2, 2)


BAD = {
    "nothing": [],
    "empty header": [b""],
    "noise": frames(b"\xc1\xff\x00garbage"),
    "a pickle": frames(b"\x80\x04\x95\x10\x00"),
    "cut short": frames(msgpack.packb(header())[:-3]),
    "trailing bytes": frames(msgpack.packb(header()) + b"\x00"),
    "not a map": frames(msgpack.packb([1, 2])),
    "bytes for names": frames({b"v": messages.PROTOCOL}),
    "deep": frames(b"\x91" * 100_000),
    "claims 4 G entries": frames(b"\xdf\xff\xff\xff\xff"),
    "long header": frames(header(pad="x" * (messages.MAX_HEADER_BYTES + 1))),
    "no version": frames(header(v=...)),
    "version as text": frames(header(v="1")),
    "version as true": frames(header(v=True)),
    "no kind": frames(header(kind=...)),
    "unknown kind": frames(header(kind="SHUTDOWN")),
    "kind is a list": frames(header(kind=["WEIGHTS"])),
    "missing field": frames(header(version=...)),
    "extra field": frames(header(extra=1)),
    "field of another type": frames(header(version="1")),
    "field true for 1": frames(header(version=True)),
    "field negative": frames(header(version=-1)),
    "field too large": frames(header(version=2**63)),
    "no arrays": frames(header(arrays=...)),
    "arrays is a map": frames(header(arrays={})),
    "arrays is a list": frames({**header(), "arrays": [["w", "float32", [2, 2]]]}),
    "arrays is noise": frames({**header(), "arrays": b"\xc1"}),
    "arrays cut short": frames({**header(), "arrays": header()["arrays"][:-1]}),
    "arrays is deep": frames({**header(), "arrays": b"\x91" * 100_000}),
    "arrays claims 4 G entries": frames({**header(), "arrays": b"\xdd\xff\xff\xff\xff"}),
    "too many arrays": frames(
        header(arrays=[[f"{n}", "uint8", [0]] for n in range(arrays.MAX_ARRAYS)] + [["w", "uint8", [16]]])
    ),
    "no frame for the arrays": [msgpack.packb(header())],
    "a frame for no arrays": frames(header(arrays=[])),
    "a frame too many": frames(header(), bytes(16), bytes(16)),
    "a byte too few": frames(header(), bytes(15)),
    "a byte too many": frames(header(), bytes(17)),
    "no gap": frames(header(arrays=[["a", "uint8", [1]], ["b", "uint8", [1]]]), bytes(2)),
    "same name twice": frames(header(arrays=[["w", "float32", [2, 2]]] * 2), bytes(32)),
    "entry is text": frames(header(arrays=["w"])),
    "dtype object": frames(header(arrays=[["w", "object", [2]]])),
    "dtype unhashable": frames(header(arrays=[["w", ["float32"], [2, 2]]])),
    "name not text": frames(header(arrays=[[1, "float32", [2, 2]]])),
    "name empty": frames(header(arrays=[["", "float32", [2, 2]]])),
    "shape too small": frames(header(arrays=[["w", "float32", [2]]])),
    "shape negative": frames(header(arrays=[["w", "float32", [-2, -2]]])),
    "shape of floats": frames(header(arrays=[["w", "float32", [2.0, 2.0]]])),
    "shape of true": frames(header(arrays=[["w", "float32", [True, 4]]])),
    "shape is text": frames(header(arrays=[["w", "float32", "22"]])),
    "absurd length": frames(header(arrays=[["w", "uint8", [2**40]]])),
    "absurd product": frames(header(arrays=[["w", "uint8", [2**30] * 8]])),
    "overflow to the right size": frames(header(arrays=[["w", "uint8", [2**32, 2**32, 16]]])),
    "nine axes": frames(header(arrays=[["w", "float32", [1] * 8 + [4]]])),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_messages_are_wire_errors(name):
    with pytest.raises(WireError):
        unpack(BAD[name])


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bytes_are_a_message_or_a_wire_error(data):
    good = pack_step(KEY, 0, Transition({"s": np.zeros(2, np.float32)}, np.zeros(1, np.float32), 0.0, False, False))
    raw = [bytearray(frame) for frame in good]
    for _ in range(data.draw(st.integers(1, 4))):
        frame = raw[data.draw(st.integers(0, len(raw) - 1))]
        if frame:
            frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    raw = [bytes(frame)[: data.draw(st.none() | st.integers(0, 300))] for frame in raw]
    with contextlib.suppress(WireError):
        read_step(unpack(raw))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=3))
def test_noise_is_a_wire_error(raw):
    with pytest.raises(WireError):
        unpack(raw)


@pytest.mark.parametrize("name", ["", "../etc", "a/b", ".hidden", "a b", "a\n", "x" * 65, "ü", "-rf"])
def test_names_that_are_no_file_names_are_refused(name):
    fields = {"boot": "ab", "episode": 0, "steps": 1, "receipt": ""}
    with pytest.raises(WireError, match="robot"):
        pack("ACK", robot=name, **fields)
    raw = msgpack.packb({"v": messages.PROTOCOL, "kind": "ACK", "robot": name, **fields, "arrays": b"\x90"})
    with pytest.raises(WireError, match="robot"):
        unpack([raw])


@pytest.mark.parametrize(
    "entry", [["r", "b", 1], ["r", "b", 1, -1], ["r", "../b", 1, 1], [1, "b", 1, 1], "rb11", ["r", "b", 1, True]]
)
def test_an_outbox_report_is_checked(entry):
    head = {"v": messages.PROTOCOL, "kind": "PULL", **PULL, "outbox": [entry], "arrays": b"\x90"}
    with pytest.raises(WireError, match="outbox"):
        unpack([msgpack.packb(head)])
    assert unpack([msgpack.packb({**head, "outbox": [["r", "b", 1, 0]]})]).fields["have"] == -1


@pytest.mark.parametrize(
    "meta", [{"a": b"bytes"}, {"a": {b"key": 1}}, {"a": msgpack.Timestamp(1)}, {"a": msgpack.ExtType(5, b"x")}]
)
def test_meta_that_no_file_could_hold_is_refused(meta):
    step = Transition({"s": np.zeros(2, np.float32)}, np.zeros(1, np.float32), 0.0, False, False)
    head = msgpack.unpackb(pack_step(KEY, 0, step)[0])
    body = pack_step(KEY, 0, step)[1:]
    unpack([msgpack.packb({**head, "meta": {"a": 1}}), *body])
    with pytest.raises(WireError, match="meta"):
        unpack([msgpack.packb({**head, "meta": meta}), *body])


def test_versions():
    with pytest.raises(ProtocolError, match="protocol version 99"):
        unpack(frames(header(v=99)))
    future = {"v": 99, "kind": "REFUSE", "reason": "I am from the future", "novelty": 1, "arrays": []}
    assert unpack([msgpack.packb(future)]).fields["reason"] == "I am from the future"  # the one thing both must read
    with pytest.raises(ProtocolError):
        unpack([msgpack.packb({**future, "reason": 5})])


def test_step_arrays_that_do_not_belong():
    step = Transition({"s": np.zeros(2, np.float32)}, np.zeros(1, np.float32), 0.0, False, False)
    message = unpack(pack_step(KEY, 0, step))
    for change, text in (
        ({"weights/x": message.arrays["action"]}, "unexpected"),
        ({"obs/": message.arrays["action"]}, "unexpected"),
    ):
        other = messages.Message("STEP", message.fields, {**message.arrays, **change})
        with pytest.raises(WireError, match=text):
            read_step(other)
    without = copy.copy(message.arrays)
    del without["action"]
    with pytest.raises(WireError, match="no action"):
        read_step(messages.Message("STEP", message.fields, without))


def test_episode_name_is_safe_and_sorts():
    names = [episode_name({"robot": "left-arm", "boot": "ab12", "number": number}) for number in (2, 10, 999_999)]
    assert names[0] == "left-arm~ab12~000002"
    assert names == sorted(names)
    assert set("".join(names)) <= set(string.ascii_letters + string.digits + "-~")


def test_item_19_no_two_episodes_have_one_file_name():
    keys = [("arm", "2-deadbeef", 1), ("arm-2", "deadbeef", 1), ("arm-2-deadbeef", "0", 1), ("arm.2", "deadbeef", 1)]
    names = {episode_name(dict(zip(("robot", "boot", "number"), key, strict=True))) for key in keys}
    assert len(names) == len(keys) and not schema.NAME.fullmatch("a~b")


@pytest.mark.parametrize(
    "address",
    [
        "tcp://127.0.0.1:5555",
        "tcp://127.8.0.1:*",
        "tcp://[::1]:5555",
        "tcp://localhost:1",
        "ipc:///tmp/x",
        "inproc://x",
    ],
)
def test_loopback_is_allowed(address):
    check_address(address, allowed=False)


@pytest.mark.parametrize(
    "address",
    [
        "tcp://*:5555", "tcp://0.0.0.0:5555", "tcp://192.168.0.2:5555", "tcp://[::]:5555", "tcp://eth0:5555",
        "tcp://127.0.0.1.example.org:5555", "tcp://10.0.0.1:0;127.0.0.1:5555", "tcp://127.0.0.1:0;10.0.0.1:5555",
        "udp://127.0.0.1:5555",
    ],
)  # fmt: skip
def test_other_addresses_need_insecure(address):
    with pytest.raises(UserError, match="other machines"):
        check_address(address, allowed=False)
    check_address(address, allowed=True)


@pytest.mark.parametrize("address", ["5555", "", "127.0.0.1:5555"])
@pytest.mark.parametrize("allowed", [False, True])
def test_an_address_without_its_transport_is_refused(address, allowed):
    with pytest.raises(UserError, match="begins with its transport: tcp://"):
        check_address(address, allowed)


@pytest.mark.parametrize("port", ["", "99999", "-1", "5555x"])
def test_ports_that_cannot_be(port):
    with pytest.raises(UserError, match=f"tcp://127.0.0.1:{port} .*port"):
        check_address(f"tcp://127.0.0.1:{port}", allowed=True)


def test_faults_are_all_counted_but_not_all_logged(caplog):
    faults = Faults()
    for number in range(500):
        faults.note("STEP", "robot-7", f"bad thing {number}")
    assert faults.counts == {"STEP": 500}
    assert len(caplog.records) == 1
    assert "robot-7" in caplog.text and "bad thing 0" in caplog.text
