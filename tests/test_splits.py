"""Splits: a partition, honest, stable, and exactly the published one where that is asked for."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segdata.errors import OptionError, SourceError
from segdata.hashing import unit_hash
from segdata.records import SPLITS
from segdata.splits import (
    SplitKey,
    amount,
    by_hash,
    by_lists,
    by_order,
    components,
    order_key,
    read_list,
    straddling,
)

Sides = Mapping[str, Sequence[int]]


def key(name: str, group: str = "", image: str = "", folder: str = "photos") -> SplitKey:
    """A sample of its own group and picture unless said otherwise."""
    return SplitKey(name, group or name, f"{folder}/{name}.jpg", image or hashlib.sha256(name.encode()).hexdigest())


def keys(count: int, start: int = 0) -> list[SplitKey]:
    return [key(f"s{i:05d}") for i in range(start, start + count)]


def hashed(
    samples: Sequence[SplitKey], test: float | int = 0.2, validation: float | int = 0, salt: str = ""
) -> dict[str, list[int]]:
    return by_hash(samples, [sample.group for sample in samples], test, validation, salt)


def names(samples: Sequence[SplitKey], sides: Sides) -> dict[str, set[str]]:
    return {split: {samples[i].id for i in sides.get(split, [])} for split in SPLITS}


def side_of(samples: Sequence[SplitKey], sides: Sides) -> dict[str, str]:
    return {samples[i].id: split for split, positions in sides.items() for i in positions}


def sizes(sides: Sides) -> tuple[int, int, int]:
    return len(sides["train"]), len(sides["validation"]), len(sides["test"])


SAMPLES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 25)), min_size=1, max_size=40).map(
    lambda pairs: [key(f"s{i:02d}", f"g{group}", f"p{picture}") for i, (group, picture) in enumerate(pairs)]
)
AMOUNTS = st.sampled_from([0, 1, 2, 0.0, 0.1, 0.3, 0.5])
few_examples = settings(max_examples=60, deadline=None)


# ---- every method: a partition


@few_examples
@given(SAMPLES, AMOUNTS, AMOUNTS, st.text(max_size=5))
def test_by_hash_puts_every_sample_on_one_side(
    samples: list[SplitKey], test: float | int, validation: float | int, salt: str
) -> None:
    test, validation = (min(x, len(samples)) if isinstance(x, int) else x for x in (test, validation))
    sides = hashed(samples, test, validation, salt)
    assert sorted(i for positions in sides.values() for i in positions) == list(range(len(samples)))
    assert all(positions == sorted(positions) for positions in sides.values())


@few_examples
@given(SAMPLES, st.integers(0, 40), st.integers(0, 40))
def test_by_order_puts_every_sample_on_one_side(samples: list[SplitKey], test: int, validation: int) -> None:
    test = min(test, len(samples))
    validation = min(validation, len(samples) - test)
    sides = by_order(samples, test, validation)
    assert sorted(i for positions in sides.values() for i in positions) == list(range(len(samples)))
    assert sizes(sides) == (len(samples) - test - validation, validation, test)


@few_examples
@given(SAMPLES, st.data())
def test_by_lists_splits_what_is_listed_and_tells_the_rest(samples: list[SplitKey], draw: st.DataObject) -> None:
    where = [draw.draw(st.sampled_from(["train", "test", "none"])) for _ in samples]
    lists = {
        split: [sample.id for sample, side in zip(samples, where, strict=True) if side == split]
        for split in ("train", "test")
    }
    sides, missing, unlisted = by_lists(samples, [s.group for s in samples], lists)
    assert {split: [samples[i].id for i in sides[split]] for split in lists} == lists
    assert missing == []
    assert unlisted == [sample.id for sample, side in zip(samples, where, strict=True) if side == "none"]


class Anew:
    """Samples that are there only while somebody goes through them, as those of a large dataset."""

    def __init__(self, samples: Sequence[SplitKey]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[SplitKey]:
        return (msgspec.structs.replace(sample) for sample in self.samples)


@few_examples
@given(SAMPLES, AMOUNTS, st.sampled_from(["", "d-"]))
def test_samples_need_not_stay_in_memory(samples: list[SplitKey], test: float | int, prefix: str) -> None:
    test = min(test, len(samples))
    groups = [prefix + sample.group for sample in samples]
    lists = {"train": [samples[0].image], "test": [samples[-1].id] if len(samples) > 1 else []}
    assert components(Anew(samples)) == components(samples)
    assert by_hash(Anew(samples), groups, test, 0, "") == by_hash(samples, groups, test, 0, "")
    assert by_order(Anew(samples), test, 0) == by_order(samples, test, 0)
    assert by_lists(Anew(samples), groups, lists) == by_lists(samples, groups, lists)
    sides = by_order(samples, test, 0)
    assert straddling(Anew(samples), sides) == straddling(samples, sides)


# ---- by hash


@few_examples
@given(SAMPLES, AMOUNTS, AMOUNTS)
def test_groups_and_identical_pictures_never_straddle(
    samples: list[SplitKey], test: float | int, validation: float | int
) -> None:
    test, validation = (min(x, len(samples)) if isinstance(x, int) else x for x in (test, validation))
    sides = hashed(samples, test, validation)
    assert straddling(samples, sides) == []
    side = side_of(samples, sides)
    for one in samples:
        for other in samples:
            if one.group == other.group or one.image_sha256 == other.image_sha256:
                assert side[one.id] == side[other.id]


@few_examples
@given(SAMPLES)
def test_components_are_the_closure_of_groups_and_identical_pictures(samples: list[SplitKey]) -> None:
    reached = [{i} for i in range(len(samples))]
    for _ in samples:  # as often as a chain can be long
        for i, one in enumerate(samples):
            for j, other in enumerate(samples):
                if one.group == other.group or one.image_sha256 == other.image_sha256:
                    reached[i] = reached[j] = reached[i] | reached[j]
    assert components(samples) == [min(found) for found in reached]


def test_a_chain_of_groups_and_pictures_is_one_component() -> None:
    samples = [key("a", "g1", "p1"), key("b", "g2", "p2"), key("c", "g2", "p1"), key("d", "g3", "p2"), key("e")]
    assert components(samples) == [0, 0, 0, 0, 4]
    assert len({side_of(samples, hashed(samples))[name] for name in "abcd"}) == 1


def test_a_group_and_a_picture_of_one_name_are_different_things() -> None:
    assert components([key("a", "same", "p1"), key("b", "g", "same")]) == [0, 1]


@few_examples
@given(SAMPLES, st.integers(1, 30), st.sampled_from([0.1, 0.3]), st.sampled_from([0, 0.2]))
def test_adding_samples_never_moves_an_old_one(
    samples: list[SplitKey], more: int, test: float, validation: float | int
) -> None:
    new = [key(f"new{i}", f"g{i}" if i % 2 else "", "") for i in range(more)]  # some in old groups, none an old picture
    together = [*new[: more // 2], *samples, *new[more // 2 :]]
    before, after = side_of(samples, hashed(samples, test, validation)), hashed(together, test, validation)
    assert {name: side_of(together, after)[name] for name in before} == before


@few_examples
@given(SAMPLES, st.integers(0, 25))
def test_a_new_copy_of_an_old_picture_moves_old_samples_towards_test_only(
    samples: list[SplitKey], picture: int
) -> None:
    nearness = ("train", "validation", "test").index
    before = side_of(samples, hashed(samples, 0.3, 0.3))
    together = [*samples, key("new", "", f"p{picture}")]
    after = side_of(together, hashed(together, 0.3, 0.3))
    assert all(nearness(after[name]) >= nearness(before[name]) for name in before)


@few_examples
@given(SAMPLES, st.randoms(use_true_random=False))
def test_the_order_of_the_samples_does_not_matter(samples: list[SplitKey], randomness: random.Random) -> None:
    shuffled = samples.copy()
    randomness.shuffle(shuffled)
    for test, validation in ((0.3, 0.2), (3, 0.2), (3, 2)):
        if isinstance(test, float) or len(samples) >= 5:
            expected = names(samples, hashed(samples, test, validation))
            assert names(shuffled, hashed(shuffled, test, validation)) == expected


def test_shares_are_about_what_was_asked() -> None:
    sides = hashed(keys(3000), 0.2, 0.1)
    assert [round(n / 3000, 1) for n in sizes(sides)] == [0.7, 0.1, 0.2]


def test_another_salt_gives_another_split() -> None:
    samples = keys(200)
    assert hashed(samples, 0.5) == hashed(samples, 0.5, salt="")
    assert hashed(samples, 0.5) != hashed(samples, 0.5, salt="other")


def test_a_larger_test_share_keeps_the_smaller_one() -> None:
    samples = keys(300)
    assert set(hashed(samples, 0.1)["test"]) < set(hashed(samples, 0.3)["test"])


def test_the_side_follows_from_the_group_alone() -> None:
    samples = [key("a", "x"), key("b", "y"), key("prefixed", "d-x")]
    sides = by_hash(samples, ["x", "y", "x"], 0.5, 0, "")
    side = side_of(samples, sides)
    assert side["a"] == side["prefixed"]


@pytest.mark.parametrize("order", [["a", "b"], ["b", "a"]])
def test_of_two_datasets_groups_of_one_name_the_first_id_is_taken_first(order: list[str]) -> None:
    samples = [key(name) for name in order]
    sides = by_hash(samples, ["same", "same"], 1, 0, "")
    assert names(samples, sides) == {"train": {"b"}, "validation": set(), "test": {"a"}}


@pytest.mark.parametrize(("test", "validation"), [(0, 0), (1, 0), (37, 11), (100, 0), (50, 50)])
def test_numbers_are_exact(test: int, validation: int) -> None:
    assert sizes(hashed(keys(100), test, validation)) == (100 - test - validation, validation, test)


@few_examples
@given(SAMPLES, st.integers(0, 40))
def test_numbers_are_never_exceeded_where_groups_do_not_fit(samples: list[SplitKey], test: int) -> None:
    test = min(test, len(samples))
    sides = hashed(samples, test)
    assert len(sides["test"]) <= test
    rest = [components(samples)[i] for i in sides["train"]]
    assert all(rest.count(number) > test - len(sides["test"]) for number in rest)  # nothing more would have fitted


def test_a_share_of_validation_beside_a_share_of_test() -> None:
    samples = keys(1000)
    together, alone = hashed(samples, 0.2, 0.1), hashed(samples, 0.2)
    assert together["test"] == alone["test"]
    assert len(together["validation"]) == pytest.approx(100, abs=30)


def test_a_share_of_validation_beside_a_number_of_test() -> None:
    sides = hashed(keys(1000), 500, 0.1)
    assert len(sides["validation"]) == pytest.approx(100, abs=30)


@pytest.mark.parametrize(
    ("test", "validation", "named"), [(101, 0, "--test 101"), (-1, 0, "--test -1"), (0, 101, "--validation 101")]
)
def test_more_samples_than_there_are_cannot_be_asked_for(test: int, validation: int, named: str) -> None:
    with pytest.raises(OptionError, match=f"^{named}: expected a share below 1, or at most 100 samples"):
        hashed(keys(100), test, validation)


@pytest.mark.parametrize("share", [1.0, 1.5, -0.1])
def test_a_share_lies_below_one(share: float) -> None:
    with pytest.raises(OptionError, match=f"--test {share}"):
        amount(share, 10, "test")


@pytest.mark.parametrize("share", [float("nan"), float("inf"), float("-inf")])
def test_a_share_that_is_no_number_is_refused(share: float) -> None:
    with pytest.raises(OptionError, match="--test"):
        amount(share, 10, "test")


@pytest.mark.parametrize(
    ("value", "total", "found"), [(0.25, 8, 2), (0.0, 8, 0), (0, 8, 0), (8, 8, 8), (0.1, 1004, 100)]
)
def test_a_share_or_a_number_becomes_a_number(value: float | int, total: int, found: int) -> None:
    assert amount(value, total, "test") == found


# ---- hashes


def test_the_hash_of_a_group_is_the_documented_one() -> None:
    digest = hashlib.sha256(b"salt\x00gr\xc3\xbcn").digest()
    assert unit_hash("grün", "salt") == (int.from_bytes(digest[:8], "big") >> 11) / 2**53


@few_examples
@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
def test_hashes_lie_in_the_unit_interval(text: str, salt: str) -> None:
    assert 0 <= unit_hash(text, salt) < 1
    assert len(order_key(text)) == 32


def test_the_order_of_records_has_nothing_to_do_with_names_or_sides() -> None:
    ids = [f"s{i:04d}" for i in range(400)]
    ordered = sorted(ids, key=order_key)
    assert ordered != ids
    first_half = set(ordered[:200])
    assert 70 < len(first_half & set(ids[:200])) < 130
    assert 70 < sum(unit_hash(name, "") < 0.5 for name in first_half) < 130


# ---- ordered


def published_names(count: int) -> list[str]:
    """File names as HumanParsing has them: several stems, numbers of different lengths, letters in both cases."""
    stems = ["dataset10k_{}", "Fashionista_{}", "fashionista_{}x", "2500_{}", "C_{}", "a_{}_B"]
    return [f"{stems[i % 6].format(i)}.jpg" for i in range(count)]


def as_samples(files: Sequence[str]) -> list[SplitKey]:
    return [SplitKey(name[:-4], name[:-4], f"JPEGImages/{name}", f"hash of {name}") for name in files]


def test_the_published_split_of_humanparsing_is_reproduced() -> None:
    files = published_names(17_706)
    shuffled = files.copy()
    random.Random(3).shuffle(shuffled)
    sides = by_order(as_samples(shuffled), test=5000, validation=0)
    expected = sorted(files, key=str.lower)
    assert [shuffled[i] for i in sides["train"]] == expected[:12_706]
    assert [shuffled[i] for i in sides["test"]] == expected[-5000:]
    assert sides["validation"] == []
    assert set(expected[-5000:]) != set(sorted(files)[-5000:])  # letter case matters here: the test can fail


def test_names_alone_decide_and_not_their_folders() -> None:
    samples = [key("b", folder="z"), key("a", folder="y"), key("c", folder="x")]
    assert by_order(samples, 1, 1) == {"train": [1], "validation": [0], "test": [2]}


def test_names_that_differ_in_letter_case_only_have_one_order() -> None:
    samples = as_samples(["b.jpg", "B.jpg", "a.jpg", "A.jpg"])
    for order in (samples, samples[::-1]):
        sides = by_order(order, 1, 1)
        assert [order[i].id for split in SPLITS for i in sides[split]] == ["A", "a", "B", "b"]


def test_ordered_takes_shares_too() -> None:
    assert sizes(by_order(keys(100), 0.2, 10)) == (70, 10, 20)


def test_ordered_refuses_more_than_there_are() -> None:
    with pytest.raises(OptionError, match="--test 101"):
        by_order(keys(100), 101, 0)
    with pytest.raises(
        OptionError, match="--validation 60: expected a share below 1, or at most 50 samples beside test"
    ):
        by_order(keys(100), 50, 60)


# ---- listed

LISTED = [key("001", "p", folder="a"), key("002", "p", folder="b"), key("with space", folder="a"), key("v1.2")]


@pytest.mark.parametrize(
    "line",
    [
        "002",
        "002.jpg",
        "b/002.jpg",
        "/data/JPEGImages/002.jpg",
        "..\\b\\002.jpg",
        "002.jpg 002.png",
        "JPEGImages/002.jpg\tSegmentationClassAug/002.png",
        "/images/002.jpg /masks/002.png  extra",
    ],
)
def test_a_line_may_be_an_id_a_file_name_a_path_or_image_and_mask(line: str) -> None:
    sides, missing, _ = by_lists(LISTED, [s.group for s in LISTED], {"test": [line]})
    assert sides["test"] == [1]
    assert missing == []


@pytest.mark.parametrize("line", ["with space", "with space.jpg", "a/with space.jpg"])
def test_a_name_may_hold_a_space(line: str) -> None:
    assert by_lists(LISTED, [s.group for s in LISTED], {"test": [line]})[0]["test"] == [2]


def test_a_dot_in_a_name_is_no_suffix() -> None:
    assert by_lists(LISTED, [s.group for s in LISTED], {"test": ["v1.2"]})[0]["test"] == [3]


@pytest.mark.parametrize("line", ["./x.jpg", "x", "x.jpg", "x.jpg x.png"])
def test_a_photo_without_a_folder_may_be_recorded_with_a_dot(line: str) -> None:
    samples = [SplitKey("1", "1", "./x.jpg", "h1"), SplitKey("2", "2", "a//./y.jpg", "h2")]
    groups = [sample.group for sample in samples]
    assert by_lists(samples, groups, {"test": [line, "a/y.jpg"]})[0]["test"] == [0, 1]


def test_the_order_of_the_lists_is_kept_and_repeats_are_not() -> None:
    sides, _, unlisted = by_lists(
        LISTED, [s.group for s in LISTED], {"train": ["v1.2", "001", "v1.2.jpg"], "validation": ["002"]}
    )
    assert sides == {"train": [3, 0], "validation": [1], "test": []}
    assert unlisted == ["with space"]


def test_listed_names_without_a_sample_are_told() -> None:
    sides, missing, _ = by_lists(LISTED, [s.group for s in LISTED], {"train": ["003", "001"], "test": ["x/004.jpg"]})
    assert missing == ["003", "x/004.jpg"]
    assert sides["train"] == [0]


def test_a_sample_in_two_lists_is_refused() -> None:
    with pytest.raises(SourceError, match=r"--list test: 'a/001.jpg' stands in the list of train too"):
        by_lists(LISTED, [s.group for s in LISTED], {"train": ["001"], "test": ["002", "a/001.jpg"]})


def test_a_name_of_several_samples_is_refused() -> None:
    samples = [key("1", folder="a"), SplitKey("2", "2", "b/1.jpg", "h")]
    with pytest.raises(SourceError, match=r"'1.jpg' fits several samples \(1, 2\), expected one. List ids"):
        by_lists(samples, [s.group for s in samples], {"test": ["1.jpg"]})
    assert by_lists(samples, [s.group for s in samples], {"test": ["b/1.jpg"]})[0]["test"] == [1]


def test_an_id_is_found_even_where_it_is_the_file_name_of_another_sample() -> None:
    samples = [SplitKey("1", "1", "a/x.jpg", "h1"), SplitKey("2", "2", "b/1.jpg", "h2")]
    assert by_lists(samples, [s.group for s in samples], {"test": ["1"]})[0]["test"] == [0]


def test_a_list_file_may_have_a_bom_blank_lines_and_windows_ends(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("\ufeffä.jpg\r\n\r\n  b.jpg  \n".encode())
    assert read_list(tmp_path / "list.txt") == ["ä.jpg", "b.jpg"]


def test_a_list_file_that_is_missing_or_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "list.txt", tmp_path / "nowhere.txt", tmp_path):
        with pytest.raises(SourceError, match=r"xpected a (name a line|list of photos)"):
            read_list(path)


def test_names_with_spaces_are_read_by_their_longest_fit() -> None:
    samples = [SplitKey("a0", "a0", "a0.jpg", "h1"), SplitKey("a0 copy", "b", "a0 copy.jpg", "h2")]
    assert by_lists(
        samples, [s.group for s in samples], {"train": ["a0 copy.jpg a0 copy.png"], "test": ["a0.jpg a0.png"]}
    )[0] == {
        "train": [1],
        "validation": [],
        "test": [0],
    }


# ---- straddling


def test_what_stands_on_two_sides_is_told() -> None:
    samples = [key("a", "g"), key("b", "g"), key("c", image="p"), key("d", image="p"), key("e"), key("f", "g")]
    sides = {"train": [0, 2, 4], "test": [1, 3]}  # f stands nowhere
    assert straddling(samples, sides) == [["train: a", "test: b"], ["train: c", "test: d"]]
    assert straddling(samples, {"train": [0, 1, 5], "test": [2, 3]}) == []


def test_the_published_split_straddles_where_pictures_repeat() -> None:
    samples = [key("a", image="p"), key("b"), key("c", image="p")]
    assert straddling(samples, by_order(samples, 1, 0)) == [["train: a", "test: c"]]
