"""Pseudo-labels: networks that answer in a known way, on photos whose labels can be told by their pixels."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segdata.errors import FolderError, ImageRefused, JobFailed, OptionError, Stopped
from segdata.formats import images
from segdata.jobs.build import BuildOptions, build
from segdata.jobs.convert import ConvertOptions, ConvertReport, check, convert
from segdata.jobs.preview import preview
from segdata.jobs.split import split
from segdata.jobs.stats import stats
from segdata.jobs.verify import verify
from segdata.labels import LabelMap, distinct_colors, label_map
from segdata.records import REJECTED_JSONL, SAMPLES_JSONL, Geometry, SplitOptions, read_dataset
from segdata.sources import Entry, Found
from segdata.sources.pairs import Pairs
from segmodels import pseudo_labels as module
from segmodels.config import TrainConfig
from segmodels.networks import Network
from segmodels.predicting.media import Item, find
from segmodels.predicting.photos import photos_through
from segmodels.pseudo_labels import LabelOptions, pseudo_labels, sure_mask
from segmodels.refine import Refine
from tests.folders import lines, small_pairs, tree
from tests.material import exif, photo, saved
from tests.segmodels.material import build_tiny

assert build_tiny  # what the fixture ``tiny`` names

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
THREE = LabelMap(
    name="three", names=("background", "head", "body"), colors=distinct_colors(3), from_ids=((0, 9), (1,), (5, 6))
)
WORK = ".segdata-parts"  # behind the name of what is made


def by_red(pictures: Pixels) -> Floats:
    """A network of two classes: a person as probable as a pixel is red."""
    red = pictures[..., 0].astype(np.float32) / 255
    return np.stack([1 - red, red], axis=-1)


def by_colour(pictures: Pixels) -> Floats:
    """One of three classes: head by green, body by blue."""
    green, blue = pictures[..., 1].astype(np.float32) / 255, pictures[..., 2].astype(np.float32) / 255
    return np.stack([1 - green - blue, green, blue], axis=-1)


@dataclass
class Answers:
    """A runtime that counts what it is asked, and stops as if by Ctrl-C before it answers more than ``most``."""

    function: Callable[[Pixels], Floats]
    asked: int = 0
    most: int = 10**9
    error: type[BaseException] = KeyboardInterrupt

    def __call__(self, pictures: Pixels) -> Floats:
        if self.asked + len(pictures) > self.most:
            raise self.error
        self.asked += len(pictures)
        return self.function(pictures)


Use = Callable[..., Answers]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """``use(by_red, target="matte")``: the network that every run has from then on."""

    def put(function: Callable[[Pixels], Floats] = by_red, **changes: Any) -> Answers:
        answers = Answers(function)
        target = changes.get("target", "mask")
        facts: dict[str, Any] = {
            "path": Path("run"),
            "model": "drawn",
            "target": target,
            "label_map": label_map("binary", "mask") if target == "mask" else None,
            "geometry": Geometry(size=(32, 32), fit="letterbox"),
            "channels": 3,
            "runtime": answers,
            "sha256": "5" * 64,
            "shards_sha256": None,
        }
        monkeypatch.setattr(module, "open_network", lambda path: Network(**facts | changes))
        return answers

    return put


def reds(*levels: int, height: int = 32, width: int = 32) -> Pixels:
    """Stripes from left to right, each of one level of red."""
    picture = np.zeros((height, width, 3), np.uint8)
    for number, stripe in enumerate(np.array_split(np.arange(width), len(levels))):
        picture[:, stripe, 0] = levels[number]
    return picture


def write(path: Path, picture: Pixels, **options: Any) -> Path:
    """A PNG, which keeps every level; with options as Pillow's ``save`` takes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(saved(picture, "PNG", **options))
    return path


def label(inputs: Path | list[str], out: Path, options: LabelOptions | None = None, **wanted: Any) -> ConvertReport:
    """What the command does."""
    names = inputs if isinstance(inputs, list) else [str(inputs)]
    labels = pseudo_labels(Path("run"), names, out, options or LabelOptions())
    convert_options = ConvertOptions(**{"name": "drawn", "jobs": 1, **wanted})
    check(labels.source, out, convert_options)
    with labels.made():
        return convert(labels.source, out, convert_options)


def mask_of(out: Path, name: str) -> Pixels:
    return images.decode_mask((out / "masks" / f"{name}.png").read_bytes())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six photos of three stripes: none, half and all of a person."""
    for number in range(6):
        write(tmp_path / "photos" / f"p{number}.png", reds(number, 128, 255 - number))
    return tmp_path / "photos"


# ---- the cut ---------------------------------------------------------------------------------------------------------


def cut(pixels: list[list[float]], low: float = 0.3, high: float = 0.7) -> tuple[list[int], float]:
    """What becomes of pixels, each given by its probabilities."""
    shares = np.array([pixels], np.float32)
    mask, confidence = sure_mask(shares, (1, len(pixels)), Geometry(), low, high)
    assert mask.dtype == np.uint8
    return mask[0].tolist(), confidence


def test_what_lies_between_the_thresholds_is_ignored() -> None:
    found, confidence = cut([[1, 0], [0.71, 0.29], [0.69, 0.31], [0.5, 0.5], [0.31, 0.69], [0.29, 0.71], [0, 1]])
    assert found == [0, 0, 255, 255, 255, 1, 1]
    assert confidence == pytest.approx((1 + 0.71 + 0.69 + 0.5 + 0.69 + 0.71 + 1) / 7)


def test_thresholds_need_not_be_alike() -> None:
    assert cut([[0.85, 0.15], [0.95, 0.05], [0.45, 0.55], [0.35, 0.65]], 0.1, 0.6)[0] == [255, 0, 255, 1]


def test_with_one_threshold_nothing_is_ignored() -> None:
    assert cut([[0.51, 0.49], [0.5, 0.5], [0.49, 0.51]], 0.5, 0.5)[0] == [0, 1, 1]


def test_of_several_classes_one_must_be_sure_by_itself() -> None:
    found, confidence = cut([[0.1, 0.8, 0.1], [0.1, 0.45, 0.45], [0.1, 0.1, 0.8], [0.8, 0.1, 0.1], [0.4, 0.3, 0.3]])
    assert found == [1, 255, 2, 0, 255]
    assert confidence == pytest.approx((0.8 + 0.45 + 0.8 + 0.8 + 0.4) / 5)


def test_of_several_classes_above_a_low_threshold_the_highest_counts_and_the_first_of_equals() -> None:
    assert cut([[0.1, 0.5, 0.4], [0.1, 0.4, 0.5], [0, 0.5, 0.5]], 0.2, 0.4)[0] == [1, 2, 1]


def test_probabilities_are_resized_before_they_are_cut() -> None:
    """The edge of a small prediction is doubtful over as many pixels as it is enlarged by, about; bars do not count."""
    shares = np.full((8, 8, 2), 0.5, np.float32)
    shares[2:6, :4] = 1, 0
    shares[2:6, 4:] = 0, 1
    mask, confidence = sure_mask(shares, (32, 64), Geometry(size=(8, 8), fit="letterbox"), 0.3, 0.7)
    row = mask[16].tolist()
    assert row == sorted(row, key=[0, 255, 1].index)
    assert 2 <= row.count(255) <= 4
    assert (mask == mask[:1]).all()
    assert confidence > 0.95


# ---- masks and mattes ------------------------------------------------------------------------------------------------


def test_a_folder_of_photos_becomes_a_sound_dataset(folder: Path, tmp_path: Path, use: Use) -> None:
    use()
    report = label(folder, tmp_path / "out")
    assert (report.samples, report.rejected) == (6, {})
    assert not verify(tmp_path / "out", jobs=1).faults
    mask = mask_of(tmp_path / "out", "p0")
    assert [set(mask[:, column].tolist()) for column in (0, 16, 31)] == [{0}, {255}, {1}]
    line = lines(tmp_path / "out" / SAMPLES_JSONL)[0]
    assert (line["id"], line["group"], line["image"]) == ("p0", "p0", "p0.png")
    assert line["confidence"] == pytest.approx((11 * 1 + 11 * 128 / 255 + 10 * 1) / 32, abs=1e-3)
    assert "images" not in os.listdir(tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["out", "photos"]


def test_the_report_has_what_a_person_asks_first(folder: Path, tmp_path: Path, use: Use) -> None:
    use()
    (folder / "notes.txt").write_text("no photo")
    report = label(folder, tmp_path / "out")
    confidences = [line["confidence"] for line in lines(tmp_path / "out" / SAMPLES_JSONL)]
    assert report.confidence == pytest.approx(np.mean(confidences), abs=1e-6)
    assert report.ignored_pixels == stats(tmp_path / "out", jobs=1).splits["all"].ignored == 6 * 11 * 32
    assert report.ignored == {".txt": 1}


def test_what_decided_the_labels_is_recorded(folder: Path, tmp_path: Path, use: Use) -> None:
    use()
    label(folder, tmp_path / "out", LabelOptions((0.1, 0.9), 0.5))
    assert read_dataset(tmp_path / "out").source.options == {
        "model": "drawn",
        "network_sha256": "5" * 64,
        "sure_low": 0.1,
        "sure_high": 0.9,
        "min_confidence": 0.5,
        "labels": "binary",
        "unmapped": "reject",
        "resize_masks": False,
        "copy_images": False,
    }


def test_several_classes_keep_the_label_map_of_the_run(tmp_path: Path, use: Use) -> None:
    """Its raw ids are not those of the network: 5 is a body there, and no class here."""
    use(by_colour, label_map=THREE)
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:, 10:20, 1] = 255
    picture[:, 20:, 2] = 255
    write(tmp_path / "photos/a.png", picture)
    report = label(tmp_path / "photos", tmp_path / "out")
    labels = read_dataset(tmp_path / "out").label_map
    assert labels is not None
    assert (labels.name, labels.names, labels.colors) == (THREE.name, THREE.names, THREE.colors)
    assert set(mask_of(tmp_path / "out", "a")[0].tolist()) == {0, 1, 2}
    assert list(report.class_pixels) == ["background", "head", "body"]
    assert not verify(tmp_path / "out", jobs=1).faults


def test_mattes_are_kept_whole(tmp_path: Path, use: Use) -> None:
    use(target="matte")
    write(tmp_path / "photos/a.png", reds(0, 128, 255))
    write(tmp_path / "photos/nobody.png", reds(0, 1))
    report = label(tmp_path / "photos", tmp_path / "out")
    alpha = images.decode_matte((tmp_path / "out/mattes/a.png").read_bytes())
    np.testing.assert_array_equal(np.rint(alpha * 255), reds(0, 128, 255)[:, :, 0])
    record = read_dataset(tmp_path / "out")
    assert record.label_map is None
    assert "sure_low" not in record.source.options
    assert report.samples == 2
    line = lines(tmp_path / "out" / SAMPLES_JSONL)[0]
    assert line["confidence"] == pytest.approx((11 + 11 * 128 / 255 + 10) / 32, abs=1e-6)
    assert not verify(tmp_path / "out", jobs=1).faults


def test_mattes_are_refined_as_asked(tmp_path: Path, use: Use) -> None:
    use(target="matte")
    write(tmp_path / "photos/a.png", reds(255, 0, 255, 255))
    label(tmp_path / "photos", tmp_path / "out", LabelOptions(refine=Refine(keep_largest=True)))
    alpha = images.decode_matte((tmp_path / "out/mattes/a.png").read_bytes())
    assert (alpha[:, :16] == 0).all()
    assert (alpha[:, 16:] == 1).all()
    assert read_dataset(tmp_path / "out").source.options["keep_largest"] is True


def test_a_photo_with_an_exif_turn_gets_an_upright_mask(tmp_path: Path, use: Use) -> None:
    use()
    upright = reds(0, 255, height=48, width=32)
    stored = np.rot90(upright)  # EXIF 6: turned right, it is upright
    write(tmp_path / "photos/a.png", np.ascontiguousarray(stored), exif=exif(6))
    label(tmp_path / "photos", tmp_path / "out")
    line = lines(tmp_path / "out" / SAMPLES_JSONL)[0]
    assert (line["height"], line["width"], line["exif_orientation"]) == (48, 32, 6)
    mask = mask_of(tmp_path / "out", "a")
    assert (mask[:, :14] == 0).all()
    assert (mask[:, 18:] == 1).all()


# ---- what is rejected ------------------------------------------------------------------------------------------------


def test_a_bad_photo_stops_nothing(folder: Path, tmp_path: Path, use: Use) -> None:
    use()
    (folder / "p1cut.jpg").write_bytes(saved(photo(), "JPEG")[:-2])
    (folder / "p2none.jpg").write_bytes(b"")
    report = label(folder, tmp_path / "out", max_rejected=0.5)
    assert report.samples == 6
    rejected = {line["id"]: line["reason"] for line in lines(tmp_path / "out" / REJECTED_JSONL)}
    assert rejected == {"p1cut": "truncated", "p2none": "unreadable"}
    assert not verify(tmp_path / "out", jobs=1).faults
    with pytest.raises(JobFailed, match=r"2 of 8 samples rejected"):
        label(folder, tmp_path / "other")


def test_a_photo_whose_label_no_file_can_hold_is_rejected(
    folder: Path, tmp_path: Path, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(mask: Pixels) -> bytes:
        if mask.shape == (1, 9):
            raise ImageRefused("encoder", "OpenCV could not encode it")
        return images.encode_png(mask)

    use()
    write(folder / "thin.png", reds(255, height=1, width=9))
    monkeypatch.setattr(images, "encode_mask", encode)
    report = label(folder, tmp_path / "out", max_rejected=0.5)
    assert (report.samples, report.rejected) == (6, {"encoder": 1})


def test_photos_of_any_shape_are_labelled(tmp_path: Path, use: Use) -> None:
    use()
    for height, width in ((1, 1), (1, 20000), (3, 500), (700, 2)):
        write(tmp_path / "photos" / f"{height}x{width}.png", reds(255, height=height, width=width))
    assert label(tmp_path / "photos", tmp_path / "out").samples == 4
    assert not verify(tmp_path / "out", jobs=1).faults


def test_a_link_that_leads_nowhere_is_rejected(folder: Path, tmp_path: Path, use: Use) -> None:
    use()
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    report = label(folder, tmp_path / "out", max_rejected=0.5)
    assert (report.samples, report.rejected) == (6, {"unreadable": 2})


def test_photos_of_low_confidence_are_left_out_and_do_not_fail_the_command(
    folder: Path, tmp_path: Path, use: Use
) -> None:
    use()
    write(folder / "sure.png", reds(0, 255))
    report = label(folder, tmp_path / "out", LabelOptions(min_confidence=0.9))
    assert (report.samples, report.rejected) == (1, {"low-confidence": 6})
    assert lines(tmp_path / "out" / REJECTED_JSONL)[0]["detail"].endswith(", expected 0.9 or more")


def test_a_photo_of_which_nothing_is_sure_is_left_out(folder: Path, tmp_path: Path, use: Use) -> None:
    use()
    write(folder / "fog.png", reds(128))
    report = label(folder, tmp_path / "out")
    assert (report.samples, report.rejected) == (6, {"unsure": 1})
    detail = "no pixel's probability is 0.7 or more of background, or 0.7 or more of a class"
    assert lines(tmp_path / "out" / REJECTED_JSONL) == [{"id": "fog", "reason": "unsure", "detail": detail}]


def test_where_none_is_good_enough_the_command_says_so(folder: Path, tmp_path: Path, use: Use) -> None:
    use()
    with pytest.raises(JobFailed, match=r"no sample is left: 6 low-confidence"):
        label(folder, tmp_path / "out", LabelOptions(min_confidence=1))
    assert sorted(os.listdir(tmp_path)) == ["out", "out.segdata-parts", "photos"]  # the network is not asked again


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_what_is_refused_keeps_its_place_among_the_others(folder: Path, use: Use, batch_size: int) -> None:
    use()
    for name in ("p1x", "p1y", "p9"):
        (folder / f"{name}.png").write_bytes(b"no picture")
    network = module.open_network(folder)
    items = find([str(folder)]).items
    found = list(photos_through(network, items, lambda read, *_: read.item.name, lambda item, _: item.name, batch_size))
    assert found == [item.name for item in items] == ["p0", "p1", "p1x", "p1y", "p2", "p3", "p4", "p5", "p9"]


# ---- which photos ----------------------------------------------------------------------------------------------------


def test_photos_of_several_folders_lie_below_their_common_parent(folder: Path, tmp_path: Path, use: Use) -> None:
    use()
    other = write(tmp_path / "more" / "deep" / "p0.png", reds(0, 255))
    single = write(tmp_path / "more" / "x.png", reds(255, 0))
    report = label([str(folder), str(other.parent), str(single)], tmp_path / "out")
    assert report.samples == 8
    found = {line["id"]: line["image"] for line in lines(tmp_path / "out" / SAMPLES_JSONL)}
    assert found["more-deep-p0"] == "more/deep/p0.png"
    assert found["photos-p0"] == "photos/p0.png"
    assert found["x"] == "more/x.png"
    assert read_dataset(tmp_path / "out").image_root == ".."
    assert not verify(tmp_path / "out", jobs=1).faults


def test_photos_that_would_share_an_id_are_ambiguous(folder: Path, tmp_path: Path, use: Use) -> None:
    use()
    write(folder / "P0.png", reds(0, 255))
    write(folder / "p0.jpg.png", reds(0, 255))
    (folder / "p0.jpg").write_bytes(saved(reds(0, 255), "JPEG"))
    report = label(folder, tmp_path / "out", max_rejected=0.5)
    assert report.rejected == {"ambiguous": 3}


def test_a_photo_is_found_through_a_linked_folder(folder: Path, tmp_path: Path, use: Use) -> None:
    use()
    (tmp_path / "links" / "far").mkdir(parents=True)
    (tmp_path / "links" / "far" / "here").symlink_to(folder)
    label(tmp_path / "links" / "far" / "here", tmp_path / "out")
    assert read_dataset(tmp_path / "out").image_root == "../photos"


def test_a_name_that_no_json_can_hold_is_rejected(
    folder: Path, tmp_path: Path, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    use()
    found = find([str(folder)])
    odd = Item(folder / os.fsdecode(b"\xff.png"), "odd", "photo")
    monkeypatch.setattr(module, "find", lambda inputs: replace(found, items=[*found.items, odd]))
    report = label(folder, tmp_path / "out", max_rejected=0.5)
    assert (report.samples, report.rejected) == (6, {"bad-name": 1})
    assert lines(tmp_path / "out" / REJECTED_JSONL)[0]["id"] == "\\xff.png"


def test_videos_are_passed_over(folder: Path, tmp_path: Path, use: Use) -> None:
    use()
    (folder / "clip.mp4").write_bytes(b"a video")
    assert label(folder, tmp_path / "out").ignored == {".mp4": 1}
    with pytest.raises(OptionError, match="holds no photo"):
        label([str(folder / "clip.mp4")], tmp_path / "other")
    with pytest.raises(OptionError, match="holds no photo"):
        label(["camera:0"], tmp_path / "other")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A prepared dataset that people drew: photos of its own among others, two of one group, one with a license."""

    @dataclass(frozen=True)
    class Grouped(Pairs):
        def find(self) -> Found:
            found = super().find()
            entries = [
                Entry(id=e.id, group="g" if e.id < "p2" else e.id, image=e.image, label=e.label, license="CC0")
                for e in found.entries
            ]
            return replace(found, entries=entries)

    photos, masks = small_pairs(tmp_path / "raw")
    Image.new("RGB", (30, 40)).save(photos / "p3.jpg", exif=exif(6))
    convert(Grouped(photos, masks, label_map("binary", "mask")), tmp_path / "drawn", ConvertOptions("people", jobs=1))
    return tmp_path / "drawn"


def test_a_dataset_lends_photos_ids_groups_and_licenses(dataset: Path, tmp_path: Path, use: Use) -> None:
    use()
    before = tree(dataset)
    report = label(dataset, tmp_path / "out")
    ours, theirs = lines(tmp_path / "out" / SAMPLES_JSONL), lines(dataset / SAMPLES_JSONL)
    keys = ("id", "group", "license", "height", "width", "image_sha256")
    assert [[line[key] for key in keys] for line in ours] == [[line[key] for key in keys] for line in theirs]
    assert len(ours) == report.samples == 4
    assert ours[0]["class_pixels"] != theirs[0]["class_pixels"]
    assert ours[3]["image"] == "drawn/images/p3.png"
    assert "image_root" not in ours[3]
    assert tree(dataset) == before
    assert not verify(tmp_path / "out", jobs=1).faults


def test_a_dataset_is_never_written_over_nor_mixed(dataset: Path, tmp_path: Path, use: Use) -> None:
    use()
    with pytest.raises(FolderError, match="holds the input 'drawn'"):
        label(dataset, dataset, overwrite=True)
    with pytest.raises(OptionError, match="is a prepared dataset, and not the only input"):
        label([str(tmp_path / "raw/photos"), str(dataset)], tmp_path / "out")


# ---- folders ---------------------------------------------------------------------------------------------------------


def stopped(answers: Answers, folder: Path, out: Path, options: LabelOptions | None = None) -> None:
    """A run that is stopped before its fifth photo."""
    answers.most = 4
    with pytest.raises(Stopped, match=r"of 6 photos are done\. Run the same command again to go on"):
        label(folder, out, options or LabelOptions(batch_size=1))
    answers.most, answers.asked = 10**9, 0
    assert (out.parent / f"{out.name}{WORK}").is_dir()


def test_a_run_that_was_stopped_goes_on(folder: Path, tmp_path: Path, use: Use) -> None:
    answers = use()
    label(folder, tmp_path / "whole")
    stopped(use(), folder, tmp_path / "out")
    answers = use()
    label(folder, tmp_path / "out")
    assert 0 < answers.asked < 6
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert sorted(os.listdir(tmp_path)) == ["out", "photos", "whole"]


@pytest.mark.parametrize("change", ["photo", "label", "torn", "options", "least"])
def test_only_what_is_the_same_is_gone_on_with(folder: Path, tmp_path: Path, use: Use, change: str) -> None:
    """What the first of them was is asked anew where it changed; all of them where other labels are wanted."""
    stopped(use(), folder, tmp_path / "out")
    log = tmp_path / f"out{WORK}" / WORK / "predictions.jsonl"
    kept = len(log.read_bytes().splitlines())
    options = LabelOptions()
    if change == "photo":
        write(folder / "p0.png", reds(0, 0, 0, 255))
    if change == "label":
        (tmp_path / f"out{WORK}/masks/p0.png").write_bytes(b"")
    if change == "torn":
        log.write_bytes(log.read_bytes()[:-20])
    if change == "options":
        options = LabelOptions((0.2, 0.8))
    if change == "least":
        options = LabelOptions(min_confidence=0.5)
    answers = use()
    assert label(folder, tmp_path / "out", options).samples == 6
    assert answers.asked == 6 - {"options": 0, "least": kept}.get(change, kept - 1)
    assert not verify(tmp_path / "out", jobs=1).faults


def test_a_run_that_was_killed_goes_on_with_its_dataset(folder: Path, tmp_path: Path, use: Use) -> None:
    """Killed while the dataset is written: nothing is asked again."""
    use()
    labels = pseudo_labels(Path("run"), [str(folder)], tmp_path / "out", LabelOptions())
    with pytest.raises(Stopped), labels.made():
        raise KeyboardInterrupt
    answers = use()
    assert label(folder, tmp_path / "out").samples == 6
    assert answers.asked == 0
    assert sorted(os.listdir(tmp_path)) == ["out", "photos"]


def test_a_failure_keeps_what_the_network_said(folder: Path, tmp_path: Path, use: Use) -> None:
    answers = use()
    answers.most, answers.error = 2, MemoryError
    with pytest.raises(MemoryError):
        label(folder, tmp_path / "out", LabelOptions(batch_size=1))
    assert sorted(os.listdir(tmp_path)) == ["out.segdata-parts", "photos"]


def test_a_folder_of_somebody_else_is_left_alone(folder: Path, tmp_path: Path, use: Use) -> None:
    use()
    write(tmp_path / f"out{WORK}" / "mine.png", reds(0))
    with pytest.raises(FolderError, match=r"holds 'mine.png', which segdata did not make"):
        label(folder, tmp_path / "out")
    assert (tmp_path / f"out{WORK}" / "mine.png").is_file()


@pytest.mark.parametrize("found", ["finished", "foreign", "inputs"])
def test_what_cannot_be_written_is_told_before_the_network_is_asked(
    folder: Path, tmp_path: Path, use: Use, found: str
) -> None:
    out = tmp_path / "out"
    answers = use()
    if found == "finished":
        label(folder, out)
    if found == "foreign":
        write(out / "mine.png", reds(0))
    if found == "inputs":
        out = tmp_path
    answers = use()
    with pytest.raises(FolderError, match=r"already holds a finished|segdata did not make|holds the input"):
        label(folder, out)
    assert answers.asked == 0


def test_a_finished_dataset_is_replaced_when_asked(folder: Path, tmp_path: Path, use: Use) -> None:
    use()
    label(folder, tmp_path / "out")
    label(folder, tmp_path / "out", LabelOptions((0.5, 0.5)), overwrite=True)
    assert 255 not in mask_of(tmp_path / "out", "p0")


# ---- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sure": (0.7, 0.3)}, "--sure 0.7,0.3: expected LOW,HIGH above 0 and below 1"),
        ({"sure": (0, 0.7)}, "--sure 0,0.7"),
        ({"sure": (0.3, 1)}, "--sure 0.3,1"),
        ({"sure": (float("nan"), 0.5)}, "--sure nan,0.5"),
        ({"min_confidence": 1.5}, "--min-confidence 1.5: expected 0 to 1"),
        ({"batch_size": 0}, "--batch-size 0: expected 1 to 1024"),
    ],
)
def test_values_out_of_their_bounds_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=f"^{message}"):
        LabelOptions(**options)


def test_options_of_the_other_kind_of_network_are_refused(folder: Path, tmp_path: Path, use: Use) -> None:
    use()
    with pytest.raises(OptionError, match="masks are cut by --sure alone"):
        label(folder, tmp_path / "out", LabelOptions(refine=Refine(fill_holes=True)))
    use(target="matte")
    with pytest.raises(OptionError, match="makes mattes, of which no pixel can be ignored"):
        label(folder, tmp_path / "out", LabelOptions((0.3, 0.7)))


# ---- ready for the rest ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny")
def test_a_network_trains_on_what_another_one_said(tmp_path: Path, use: Use) -> None:
    from segmodels.train import train

    use()
    for number in range(12):
        write(tmp_path / "photos" / f"p{number}.png", reds(0, 20 * number, 255))
    dataset, manifest, shards = tmp_path / "prepared", tmp_path / "manifest", tmp_path / "shards"
    label(tmp_path / "photos", dataset)
    preview(dataset, tmp_path / "sheet.png")
    split([dataset], manifest, SplitOptions(test=3, validation=3))
    assert all("confidence" in line for line in lines(manifest / "train.jsonl"))
    build(manifest, shards, BuildOptions(Geometry(size=(32, 32), fit="letterbox"), shards=1, jobs=1))
    assert not verify(shards, jobs=1).faults
    assert sum(part.ignored for part in stats(shards, jobs=1).splits.values()) > 0
    report = train(shards, tmp_path / "run", TrainConfig("tiny", epochs=1, batch_size=4))
    assert report.epochs == 1


def test_pseudo_labels_join_those_that_people_drew(dataset: Path, folder: Path, tmp_path: Path, use: Use) -> None:
    use()
    label(folder, tmp_path / "out", name="guessed")
    split([dataset, tmp_path / "out"], tmp_path / "both", SplitOptions(test=2))
    found = [line for name in ("train", "test") for line in lines(tmp_path / "both" / f"{name}.jsonl")]
    assert len(found) == 10
    assert sum("confidence" in line for line in found) == 6
