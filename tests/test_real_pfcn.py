"""Real PFCN portraits and CCP masks, where they lie beside the checkout (``../shared/data``)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from segdata.formats import images
from segdata.formats.mat import read_mat_label, read_mat_numbers
from segdata.jobs.convert import ConvertOptions, convert
from segdata.jobs.split import split
from segdata.jobs.verify import verify
from segdata.labels import label_map
from segdata.records import SplitOptions
from segdata.sources.pairs import Pairs
from segdata.sources.pfcn import Pfcn
from segdata.transforms.crop import Crop
from segdata.transforms.resize import resize_nearest
from tests.folders import lines, tree
from tests.material import opened
from tests.sources.layouts import write

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
ROOT = DATA / "pfcn"
LISTS = {"train": ROOT / "trainlist.mat", "test": ROOT / "testlist.mat"}
WHOLE = ConvertOptions("portraits", jobs=1)
CROPS = ConvertOptions("portraits", jobs=1, crop=Crop(2, 256))
pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason="no real sample data beside this checkout (../shared/data)")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The portraits as they are."""
    out = tmp_path_factory.mktemp("real") / "whole"
    report = convert(Pfcn(ROOT), out, WHOLE)
    assert (report.samples, report.rejected) == (50, {"no-image": 5})
    return out


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two windows of each."""
    out = tmp_path_factory.mktemp("real") / "crops"
    report = convert(Pfcn(ROOT), out, CROPS)
    assert (report.samples, report.rejected) == (100, {"no-image": 5})
    return out


def raw_mask(stem: str) -> np.ndarray:
    """As SciPy reads it."""
    mask: np.ndarray = scipy.io.loadmat(ROOT / "images_mask" / f"{stem}_mask.mat")["mask"]
    return mask


def test_every_mat_file_is_what_scipy_reads() -> None:
    checked = 0
    for path in sorted([*ROOT.glob("images_mask/*.mat"), *DATA.glob("ccp/pixel-level/*.mat")]):
        key = "mask" if path.parent.name == "images_mask" else "groundtruth"
        np.testing.assert_array_equal(read_mat_label(path.read_bytes(), key).values, scipy.io.loadmat(path)[key])
        checked += 1
    assert checked == 95


def test_the_lists_have_as_many_numbers_as_they_should() -> None:
    train, test = (read_mat_numbers(path.read_bytes()) for path in LISTS.values())
    assert (len(train), len(test)) == (1529, 300)
    assert not set(train) & set(test)
    for path, numbers in zip(LISTS.values(), (train, test), strict=True):
        (values,) = (value for name, value in scipy.io.loadmat(path).items() if not name.startswith("__"))
        assert values.ravel(order="F").tolist() == numbers


def test_whole_portraits_keep_their_bytes_and_masks(whole: Path) -> None:
    for line in lines(whole / "samples.jsonl"):
        raw = (ROOT / "images_data_crop" / f"{line['id']}.jpg").read_bytes()
        assert line["image_sha256"] == hashlib.sha256(raw).hexdigest()
        mask = images.decode_mask((whole / line["mask"]).read_bytes())
        np.testing.assert_array_equal(mask, raw_mask(line["id"]))
    assert not verify(whole, jobs=1).faults


def test_crops_are_windows_of_their_portraits_with_somebody_in_them(crops: Path) -> None:
    for line in lines(crops / "samples.jsonl"):
        x, y, w, h = line["crop"]
        window = raw_mask(line["group"])[y : y + h, x : x + w]
        assert window.mean() >= 0.05
        mask = images.decode_mask((crops / line["mask"]).read_bytes())
        np.testing.assert_array_equal(mask, resize_nearest(window, 256, 256))
        picture = opened((crops / line["image"]).read_bytes())
        raw = opened((ROOT / "images_data_crop" / f"{line['group']}.jpg").read_bytes())
        assert picture.shape == (256, 256, *raw.shape[2:])
        assert abs(float(picture.mean()) - float(raw[y : y + h, x : x + w].mean())) < 1
    assert not verify(crops, jobs=1).faults


def test_the_published_split_is_kept_whole_and_cropped(whole: Path, crops: Path, tmp_path: Path) -> None:
    reports = {}
    for name, dataset in (("whole", whole), ("crops", crops)):
        reports[name] = split([dataset], tmp_path / name, SplitOptions(method="listed"), LISTS)
        assert not verify(tmp_path / name, jobs=1).faults
    photos = {path.stem for path in (ROOT / "images_data_crop").iterdir()}
    numbers = {side: {f"{n:05d}" for n in read_mat_numbers(path.read_bytes())} for side, path in LISTS.items()}
    for report in reports.values():
        found = {side: {line["group"] for line in lines(report.out / f"{side}.jsonl")} for side in LISTS}
        assert found == {side: listed & photos for side, listed in numbers.items()}
        assert set(report.missing) == (numbers["train"] | numbers["test"]) - photos
        assert report.unlisted == sorted(photos - numbers["train"] - numbers["test"])
    assert {side: 2 * count for side, count in reports["whole"].splits.items()} == reports["crops"].splits


@pytest.mark.parametrize("options", [CROPS, WHOLE], ids=["crops", "whole"])
def test_a_portrait_under_two_ids_straddles_in_lists_and_never_by_hash(tmp_path: Path, options: ConvertOptions) -> None:
    """The published lists do that to three of them, none of which is here: one is made."""
    train, test = sorted(path for path in (ROOT / "images_data_crop").iterdir())[:2]
    for path in (train, test):
        write(tmp_path / "raw" / "images_data_crop" / path.name, train.read_bytes())
        mask = ROOT / "images_mask" / f"{path.stem}_mask.mat"
        write(tmp_path / "raw" / "images_mask" / mask.name, mask.read_bytes())
    convert(Pfcn(tmp_path / "raw"), tmp_path / "d", options)
    lists = {"train": write(tmp_path / "a.txt", train.name.encode()), "test": write(tmp_path / "b", test.name.encode())}
    report = split([tmp_path / "d"], tmp_path / "m", SplitOptions(method="listed"), lists)
    assert len(report.straddling) == 1
    sides = split([tmp_path / "d"], tmp_path / "n", SplitOptions(test=0.0)).splits
    assert list(sides) == ["train"]


def test_ccp_masks_in_mat_files_are_pairs(tmp_path: Path) -> None:
    root = DATA / "ccp"
    toml = '[[classes]]\nname = "background"\nfrom = [0]\n[[classes]]\nname = "person"\nfrom = ["1-58"]\n'
    (tmp_path / "ccp.toml").write_text(toml, encoding="utf-8")
    found = label_map(str(tmp_path / "ccp.toml"), "")
    source = Pairs(root / "photos", root / "pixel-level", found, kind="index", mask_key="groundtruth")
    report = convert(source, tmp_path / "d", WHOLE)
    assert (report.samples, report.rejected) == (40, {})
    for line in lines(tmp_path / "d" / "samples.jsonl"):
        raw = scipy.io.loadmat(root / "pixel-level" / f"{line['id']}.mat")["groundtruth"]
        np.testing.assert_array_equal(images.decode_mask((tmp_path / "d" / line["mask"]).read_bytes()), raw > 0)


def test_crops_of_the_raw_folder_leave_it_as_it_was(tmp_path: Path) -> None:
    before = tree(ROOT)
    convert(Pfcn(ROOT), tmp_path / "d", CROPS)
    assert tree(ROOT) == before
