"""Examples without TensorFlow: the same messages, and nothing but a RecordError for anything else."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segdata.errors import RecordError
from segdata.formats.example import Value, decode, encode
from tests.material import tensorflow

KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
FEATURES = st.dictionaries(KEYS, st.binary(max_size=300) | st.integers(0, 2**63 - 1), max_size=6)
SAMPLE: dict[str, Value] = {
    "image/encoded": b"\x89PNG" * 90,
    "image/height": 300,
    "zero": 0,
    "empty": b"",
    "ä": 2**63 - 1,
}


@settings(max_examples=100, deadline=None)
@given(FEATURES)
def test_features_come_back(features: dict[str, Value]) -> None:
    assert decode(encode(features)) == features


def test_the_order_of_the_features_does_not_matter_for_the_bytes() -> None:
    assert encode(SAMPLE) == encode(dict(reversed(SAMPLE.items())))


@pytest.mark.parametrize("number", [0, 1, 127, 128, 16383, 16384, 2**31, 2**32, 2**63 - 1])
def test_numbers_of_every_length_come_back(number: int) -> None:
    assert decode(encode({"n": number})) == {"n": number}


@pytest.mark.parametrize("length", [0, 1, 127, 128, 129, 16383, 16384, 70_000])
def test_bytes_of_every_length_come_back(length: int) -> None:
    assert decode(encode({"b": b"x" * length})) == {"b": b"x" * length}


def test_no_bytes_are_an_example_without_features() -> None:
    assert encode({}) == b"\n\0"
    assert decode(b"") == decode(b"\n\0") == {}


def test_a_negative_number_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="range"):
        encode({"n": -1})


@pytest.mark.parametrize(
    "payload",
    [
        b"no example",
        b"\n",
        b"\n\x05\n\x03\n\x01a\x12",
        b"\x08\x05",  # a number where the features stand
        b"\n\x05\n\x03\x12\x01a",  # an entry without a key
        b"\n\x05\n\x03\n\x01\xff",  # a key that is no UTF-8, without a value
        b"\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a length of -1
        b"\x0b\x0c",  # a group, which Example does not have
    ],
)
def test_what_is_no_example_is_refused_by_name(payload: bytes) -> None:
    with pytest.raises(RecordError, match=r"^x record 3: its bytes are no tf\.train\.Example"):
        decode(payload, "x record 3")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_garbage_raises_nothing_but_a_record_error(payload: bytes) -> None:
    try:
        features = decode(payload)
    except RecordError:
        return
    assert all(isinstance(value, bytes | int) for value in features.values())


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_example_raises_nothing_but_a_record_error(draw: st.DataObject) -> None:
    payload = bytearray(encode(SAMPLE))
    for _ in range(draw.draw(st.integers(1, 3))):
        payload[draw.draw(st.integers(0, len(payload) - 1))] = draw.draw(st.integers(0, 255))
    with contextlib.suppress(RecordError):
        decode(bytes(payload[: draw.draw(st.integers(1, len(payload)))]))


# ---- beside TensorFlow


def test_our_bytes_are_what_tensorflow_parses() -> None:
    tf = tensorflow()

    @settings(max_examples=60, deadline=None)
    @given(FEATURES)
    def check(features: dict[str, Value]) -> None:
        found = tf.train.Example.FromString(encode(features)).features.feature
        assert {key: list(getattr(found[key], found[key].WhichOneof("kind")).value) for key in found} == {
            key: [value] for key, value in features.items()
        }
        assert all(
            found[k].WhichOneof("kind") == f"{'int64' if isinstance(v, int) else 'bytes'}_list"
            for k, v in features.items()
        )

    check()


def test_tensorflows_bytes_are_what_we_read() -> None:
    tf = tensorflow()
    lists = st.one_of(
        st.lists(st.binary(max_size=40), max_size=3).map(lambda v: tf.train.Feature(bytes_list={"value": v})),
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3).map(lambda v: tf.train.Feature(int64_list={"value": v})),
        st.lists(st.floats(width=32), max_size=3).map(lambda v: tf.train.Feature(float_list={"value": v})),
        st.just(tf.train.Feature()),
    )

    @settings(max_examples=60, deadline=None)
    @given(st.dictionaries(KEYS, lists, max_size=6), st.booleans())
    def check(features: dict[str, object], deterministic: bool) -> None:
        message = tf.train.Example(features={"feature": features})
        wanted = {
            key: values[0]
            for key, feature in message.features.feature.items()
            for values in [list(feature.bytes_list.value) or list(feature.int64_list.value)]
            if len(values) == 1
        }
        assert decode(message.SerializeToString(deterministic=deterministic)) == wanted

    check()


def test_a_feature_that_is_no_single_value_is_left_out() -> None:
    tf = tensorflow()
    feature = {
        "two": tf.train.Feature(int64_list={"value": [1, 2]}),
        "float": tf.train.Feature(float_list={"value": [0.5]}),
        "none": tf.train.Feature(bytes_list={"value": []}),
        "one": tf.train.Feature(int64_list={"value": [7]}),
    }
    assert decode(tf.train.Example(features={"feature": feature}).SerializeToString()) == {"one": 7}


@pytest.mark.parametrize("level", ["features", "entry"])
def test_an_unknown_field_is_not_taken_for_a_feature(level: str) -> None:
    tf = tensorflow()
    payload = bytearray(encode({"n": 7}))
    at = 0 if level == "features" else 2
    assert payload[at] == 1 << 3 | 2
    payload[at] = 5 << 3 | 2
    assert not tf.train.Example.FromString(bytes(payload)).features.feature
    try:
        found = decode(bytes(payload))
    except RecordError:
        return
    assert found == {}
