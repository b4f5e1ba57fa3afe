"""``.mat`` files: the numbers that SciPy writes and reads come back, and nothing else is ever taken for ids."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.io
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from segdata.errors import ImageRefused
from segdata.formats.mat import read_mat_label, read_mat_numbers
from tests.material import ids, saved
from tests.sources.layouts import mat

few_examples = settings(max_examples=100, deadline=None)
IDS = ids(24, 32, 2)
HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
TYPES = {"int8": 1, "uint8": 2, "int16": 3, "uint16": 4, "int32": 5, "uint32": 6, "float32": 7, "float64": 9}
DAMAGED = "unreadable: a .mat file that is cut or damaged"


def plain(**matrices: Any) -> bytes:
    """A ``.mat`` file of version 5 whose elements are not compressed."""
    file = io.BytesIO()
    scipy.io.savemat(file, matrices, do_compression=False)
    return file.getvalue()


def version_4(**matrices: Any) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, matrices, format="4")
    return file.getvalue()


def part(kind: int, content: bytes, order: str = "<") -> bytes:
    """An element as the format lays it out: type, size, and the content up to a multiple of 8 bytes."""
    return struct.pack(f"{order}II", kind, len(content)) + content + b"\0" * (-len(content) % 8)


def matrix(
    shape: tuple[int, ...], numbers: bytes, kind: int = 2, cls: int = 9, name: bytes = b"mask", order: str = "<"
) -> bytes:
    """A matrix by hand: its numbers' type and class, neither of which need be true."""
    content = part(6, struct.pack(f"{order}II", cls, 0), order)
    content += part(5, struct.pack(f"{order}{len(shape)}i", *shape), order) + part(1, name, order)
    return part(14, content + part(kind, numbers, order), order)


def packed(*elements: bytes) -> bytes:
    """A file of those elements, each compressed."""
    return HEADER + b"".join(
        struct.pack("<II", 15, len(content)) + content for content in (zlib.compress(e, 9) for e in elements)
    )


def refused(data: bytes, key: str | None = None) -> ImageRefused:
    with pytest.raises(ImageRefused) as caught:
        read_mat_label(data, key)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    return caught.value


# ---- what is read


@pytest.mark.parametrize("write", [mat, plain], ids=["compressed", "not compressed"])
@pytest.mark.parametrize("dtype", ["bool", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_ids_of_any_class_come_back_in_their_place(write: Callable[..., bytes], dtype: str) -> None:
    label = read_mat_label(write(mask=IDS.astype(dtype)), "mask")
    np.testing.assert_array_equal(label.values, IDS)
    assert label.values.dtype == np.uint8
    assert label.values.flags.c_contiguous
    assert (label.lossy, label.white, label.palette) == (False, 255, None)


@few_examples
@given(
    arrays.arrays(
        st.sampled_from(["u1", "u2", "i2", "i4", "i8", "f4", "f8"]),
        arrays.array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements=st.integers(0, 255),
    ),
    st.sampled_from([mat, plain]),
)
def test_what_scipy_reads_is_what_is_read(values: npt.NDArray[Any], write: Callable[..., bytes]) -> None:
    data = write(x=values)
    np.testing.assert_array_equal(read_mat_label(data).values, scipy.io.loadmat(io.BytesIO(data))["x"])


@pytest.mark.parametrize(("highest", "dtype"), [(255, np.uint8), (256, np.uint16), (65535, np.uint16)])
def test_ids_of_two_bytes_stay_what_they_are(highest: int, dtype: type) -> None:
    label = read_mat_label(mat(mask=np.array([[0.0, highest]])))
    assert label.values.tolist() == [[0, highest]]
    assert label.values.dtype == dtype


@pytest.mark.parametrize("name", list(TYPES))
def test_numbers_may_be_stored_shorter_than_their_class(name: str) -> None:
    """As MATLAB stores a double matrix of small numbers."""
    values = np.array([[0, 1, 2], [3, 4, 5]], name)
    data = HEADER + matrix((2, 3), values.tobytes(order="F"), TYPES[name], cls=6)
    np.testing.assert_array_equal(read_mat_label(data).values, values)


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
def test_either_byte_order_is_read(order: str) -> None:
    header = HEADER[:124] + (b"\x00\x01IM" if order == "<" else b"\x01\x00MI")
    numbers = np.array([1, 2, 3, 400], f"{order}u2").tobytes()
    assert read_mat_label(header + matrix((2, 2), numbers, 4, 11, order=order)).values.tolist() == [[1, 3], [2, 400]]


def test_the_wanted_matrix_of_several_is_read() -> None:
    data = mat(other=np.ones((2, 2)), mask=IDS, text="portrait", parts={"a": IDS})
    np.testing.assert_array_equal(read_mat_label(data, "mask").values, IDS)


def test_the_only_matrix_needs_no_name() -> None:
    np.testing.assert_array_equal(read_mat_label(mat(anything=IDS)).values, IDS)


@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (2, 2)])
def test_numbers_stand_in_matlabs_order_by_columns(shape: tuple[int, int]) -> None:
    numbers = np.array([4, 3, 70000 // 2, 1]).reshape(shape, order="F")
    assert read_mat_numbers(mat(trainlist=numbers.astype(float))) == [4, 3, 35000, 1]


# ---- what is refused: other values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((2, 2), 0.5), "fractions"),
        (np.array([[1.0, np.nan]]), "fractions"),
        (np.array([[1.0, np.inf]]), "fractions"),
        (np.array([[0, -1]], np.int16), "ids -1 to 0, expected 0 to 65535"),
        (np.array([[0, 65536]]), "ids 0 to 65536, expected 0 to 65535"),
        (np.array([[0, 1e300]]), r"ids 0 to 1e\+300"),
        (np.array([[0, 2**64 - 1]], np.uint64), "ids 0 to 1.84467e"),
        (np.zeros((0, 0)), r"shape \(0, 0\), expected height x width"),
        (np.zeros((0, 5)), r"shape \(0, 5\)"),
        (np.zeros((2, 2, 3), np.uint8), r"shape \(2, 2, 3\)"),
        (np.zeros((2, 2)) + 1j, "'mask' is of MATLAB's class complex, expected numbers"),
        ("a text", "class char"),
        (np.array([IDS, "x"], object), "class cell"),
        ({"a": IDS}, "class struct"),
        (scipy.sparse.coo_matrix(IDS.astype(float)), "class sparse"),
    ],
)
def test_a_matrix_of_anything_but_ids_is_refused(values: Any, message: str) -> None:
    with pytest.raises(ImageRefused, match=f"^mask-mode: .*{message}"):
        read_mat_label(mat(mask=values), "mask")


@pytest.mark.parametrize(("cls", "kind"), [(3, "object"), (16, "function"), (17, "object"), (0, "0"), (99, "99")])
def test_an_object_a_function_and_what_no_matlab_knows_are_refused(cls: int, kind: str) -> None:
    assert str(refused(HEADER + matrix((2, 2), b"mask", 1, cls))).endswith(f"class {kind}, expected numbers")


@pytest.mark.parametrize(
    ("held", "key", "message"),
    [
        ({"groundtruth": IDS}, "mask", "holds 'groundtruth', expected one 'mask'"),
        ({"Mask": IDS}, "mask", "holds 'Mask', expected one 'mask'"),
        ({"a": IDS, "b": IDS}, None, "holds 'a', 'b', expected one matrix"),
        ({"a": IDS, "b": IDS}, "", "expected one ''"),
        ({f"m{i}": i for i in range(10, 40)}, "mask", "'m14', 'm15', ..., expected"),
        ({}, "mask", "holds nothing, expected one 'mask'"),
        ({}, None, "holds nothing, expected one matrix"),
    ],
    ids=["other name", "other letter case", "several", "no name", "many", "none", "none at all"],
)
def test_what_the_file_holds_instead_is_named(held: dict[str, Any], key: str | None, message: str) -> None:
    error = refused(mat(**held), key)
    assert error.reason == "mask-mode"
    assert message in error.detail


def test_two_matrices_of_one_name_are_refused() -> None:
    first, second = matrix((1, 2), b"\0\1"), matrix((2, 1), b"\0\1")
    assert "holds 'mask', 'mask', expected one 'mask'" in refused(HEADER + first + second, "mask").detail


# ---- what is refused: other files


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no .mat file of version 5"),
        (b"\0" * 200, "no .mat file of version 5"),
        (saved(IDS, "PNG"), "no .mat file of version 5"),
        (b"<html>not found</html>" * 20, "no .mat file of version 5"),
        (version_4(mask=IDS.astype(float)), "no .mat file of version 5; save it with -v7"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 500, r"version 7.3 \(HDF5\); save it with -v7"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\0" * 384 + b"\x89HDF\r\n\x1a\n", "version 7.3"),
    ],
    ids=["empty", "zeros", "a PNG", "a web page", "version 4", "HDF5", "version 7.3"],
)
def test_other_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ImageRefused, match=f"^unreadable: .*{message}"):
        read_mat_label(data)


@pytest.mark.parametrize("write", [mat, plain], ids=["compressed", "not compressed"])
def test_a_file_cut_anywhere_is_refused(write: Callable[..., bytes]) -> None:
    data = write(mask=IDS)
    for end in range(len(data)):
        refused(data[:end], "mask")


@pytest.mark.parametrize("write", [mat, plain, version_4], ids=["compressed", "not compressed", "version 4"])
@pytest.mark.parametrize("held", [{"mask": IDS}, {"mask": IDS * 1.0, "b": 1.0}], ids=["one", "two"])
def test_wrong_bytes_end_as_ids_or_as_a_refusal(write: Callable[..., bytes], held: dict[str, Any]) -> None:
    chance, data = random.Random(5), write(**held)
    for _ in range(1500):
        broken = bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 5))):
            broken[chance.randrange(min(len(data), chance.choice((260, len(data)))))] = chance.randrange(256)
        try:
            label = read_mat_label(bytes(broken), "mask")
        except ImageRefused:
            continue
        assert label.values.ndim == 2


def test_a_wrong_byte_of_compressed_numbers_never_changes_an_id() -> None:
    data = mat(mask=IDS)
    for at in range(136, len(data)):
        for wrong in (data[at] ^ 1, data[at] ^ 0x80, 0, 255):
            try:
                found = read_mat_label(data[:at] + bytes([wrong]) + data[at + 1 :], "mask")
            except ImageRefused:
                continue
            np.testing.assert_array_equal(found.values, IDS)


@few_examples
@given(st.binary(max_size=400))
def test_any_bytes_behind_a_header_are_refused(data: bytes) -> None:
    with pytest.raises(ImageRefused):
        read_mat_label(HEADER + data)


@pytest.mark.parametrize("kind", [0, 8, 10, 14, 15, 18, 19, 0x95, 0xD7, 0xD702])
def test_numbers_of_a_type_that_is_none_are_refused(kind: int) -> None:
    """The bytes that end a process in which SciPy reads them."""
    assert str(refused(HEADER + matrix((24, 32), IDS.tobytes(order="F"), kind))).startswith(DAMAGED)


@pytest.mark.parametrize("shape", [(24, 31), (24, 33), (-24, -32), (24, -32), (-1, 0), (24, 32, 2)])
def test_a_shape_that_its_numbers_do_not_fill_is_refused(shape: tuple[int, ...]) -> None:
    for data in (HEADER + matrix(shape, IDS.tobytes()), packed(matrix(shape, IDS.tobytes()))):
        refused(data, "mask")


@pytest.mark.parametrize("shape", [(), (4,), (2, 2, 1), (1,) * 500, (2**31 - 1,) * 32])
def test_a_matrix_is_of_rows_and_columns(shape: tuple[int, ...]) -> None:
    assert refused(HEADER + matrix(shape, b"\0" * 4)).detail.endswith("expected height x width")


@pytest.mark.parametrize("size", [0xFFFFFFFF, 1 << 31, 100_000])
def test_numbers_that_announce_more_bytes_than_there_are_are_refused(size: int) -> None:
    element = matrix((24, 32), IDS.tobytes())
    at = element.index(struct.pack("<II", 2, IDS.size)) + 4
    element = element[:at] + struct.pack("<I", size) + element[at + 4 :]
    for data in (HEADER + element, packed(element)):
        assert str(refused(data)).startswith(DAMAGED)


# ---- memory


@pytest.mark.parametrize("shape", [(100_000, 100_000), (2**31 - 1, 2**31 - 1), (89_000_001, 1)])
def test_a_huge_shape_is_refused_before_anything_is_made_of_it(shape: tuple[int, ...]) -> None:
    assert refused(HEADER + matrix(shape, b"\0")).reason == "too-large"
    assert refused(packed(matrix(shape, b"\0"))).reason == "too-large"


@pytest.mark.parametrize(
    "bomb",
    [
        lambda zeros: packed(matrix((3, 3), zeros)),
        lambda zeros: packed(matrix((3, 3), b"\0" * 9, name=zeros)),
        lambda zeros: packed(matrix((3, 3), zeros, name=b"other"), matrix((3, 3), b"\0" * 9)),
        lambda zeros: packed(matrix((10_000, 10_000), zeros), matrix((3, 3), b"\0" * 9)),
    ],
    ids=["numbers", "name", "in a matrix that nobody wants", "before a harmless one of its name"],
)
def test_a_compression_bomb_is_not_unpacked(bomb: Callable[[bytes], bytes]) -> None:
    data = bomb(b"\0" * 40_000_000)
    tracemalloc.start()
    try:
        read_mat_label(data, "mask")
    except ImageRefused:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2_000_000


def test_a_stream_that_goes_on_behind_its_numbers_is_refused() -> None:
    assert str(refused(packed(matrix((3, 3), b"\0" * 9) + b"\0" * 200))).startswith(DAMAGED)


def test_a_stream_without_its_checksum_is_refused() -> None:
    content = zlib.compress(matrix((3, 3), b"\0" * 9))[:-4]
    assert str(refused(HEADER + struct.pack("<II", 15, len(content)) + content)).startswith(DAMAGED)
