"""Nesting and formatting of bytes from outside."""

import json

import msgpack
import pytest

from agent.wire import arrays, messages
from agent.wire.untrusted import MAX_DEPTH, MAX_ITEMS, WireError, is_shallow, kind_of, unpack_map, unpack_untrusted


def nested(levels, opened=b"\x91", inner=b"\x90"):
    """msgpack of a list in a list in a list, `levels` in all."""
    return opened * (levels - 1) + inner


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 200, 511, 1000, 1023, 1024, 1_000_000])
@pytest.mark.parametrize("opened", [b"\x91", b"\x81\xa1a", b"\xdd\x00\x00\x00\x01", b"\xdf\x00\x00\x00\x01\xa1a"])
def test_deep_nesting_is_refused_and_overflows_nothing(levels, opened):
    data = nested(levels, opened)
    for read in (unpack_untrusted, arrays.read_layout):
        with pytest.raises(WireError) as refused:
            read(data)
        assert len(str(refused.value)) < 100


@pytest.mark.parametrize("kind", ["HELLO", "STEP", "PULL", "PROBE", "BYE", "REFUSE", "nonsense"])
@pytest.mark.parametrize("levels", [20, 1000])
def test_a_deep_value_in_any_field_of_a_message_is_a_wire_error(kind, levels):
    for field in ("v", "kind", "arrays", "outbox", "env", "meta", "reason", "extra"):
        header = {"v": messages.PROTOCOL, "kind": kind, "arrays": b"\x90", field: "HERE"}
        data = msgpack.packb(header).replace(b"\xa4HERE", nested(levels))
        with pytest.raises(WireError):
            messages.unpack([data])


def test_what_is_shallow_enough_passes_and_can_be_formatted():
    value = unpack_untrusted(nested(MAX_DEPTH))
    assert json.loads(json.dumps(value)) == value and repr(value)
    assert is_shallow(value, MAX_DEPTH) and not is_shallow(value, MAX_DEPTH - 1)


def test_what_declares_more_items_than_there_may_be_takes_no_memory():
    for many in (b"\xdd\x00\x0f\xff\xff" * 1000, b"\xdf\x00\x0f\xff\xff" * 1000, msgpack.packb([0] * (MAX_ITEMS + 1))):
        with pytest.raises(WireError):
            unpack_untrusted(many + b"\xc0" * 1_000_000)


def test_a_sender_cannot_pack_what_a_receiver_would_refuse():
    deep = {}
    for _ in range(MAX_DEPTH):
        deep = {"a": deep}
    with pytest.raises(WireError, match="env"):
        messages.pack("PROBE", spec={}, env=deep, sent_s=0.0, answer_bytes=0)


def test_only_maps_with_names_are_maps():
    assert unpack_map(msgpack.packb({"a": 1})) == {"a": 1}
    for other in ([], 1, {b"a": 1}):
        with pytest.raises(WireError):
            unpack_map(msgpack.packb(other))


def test_an_error_says_type_and_size_of_what_came_not_what_it_was():
    assert kind_of("secret") == "str of 6" and kind_of([1, 2]) == "list of 2" and kind_of({}) == "dict of 0"
    assert kind_of(None) == "None" and kind_of(3) == "3" and kind_of(True) == "True"
