"""Smoothing over time: the flow, the mixing, the figure, and that nothing but one frame is kept."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import cv2
import numpy as np
import pytest

from segdata.errors import OptionError
from segmodels import smoothing
from segmodels.smoothing import NOT_SMOOTHED, Flicker, Flow, Smooth, Smoother, Tracker, smooth_option, warp

H, W = 96, 128
EVERYWHERE = np.ones((H, W), bool)


def texture(seed: int = 0, height: int = H, width: int = W) -> Any:
    """A picture (height, width) uint8 with something to follow everywhere."""
    noise = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.clip(128 + 50 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def still(dx: float = 0, dy: float = 0, height: int = H, width: int = W) -> Any:
    """The flow (height, width, 2) of a picture of which each pixel was at (+dx, +dy)."""
    return np.full((height, width, 2), (dx, dy), np.float32)


def disc(x: float, y: float = 48, radius: float = 24) -> Any:
    """Mask (H, W) uint8."""
    rows, columns = np.mgrid[0:H, 0:W]
    return (np.hypot(rows - y, columns - x) < radius).astype(np.uint8)


def shares_of(person: Any) -> Any:
    """(H, W, 2) float32 of the share of class 1."""
    return np.stack([1 - person, person], axis=-1).astype(np.float32)


def random_shares(seed: int, classes: int = 3, height: int = H, width: int = W) -> Any:
    shares = np.random.default_rng(seed).random((height, width, classes), dtype=np.float32)
    return shares / shares.sum(axis=-1, keepdims=True)


# ---- the option


@pytest.mark.parametrize(
    ("text", "smooth"),
    [
        (None, NOT_SMOOTHED),
        ("none", NOT_SMOOTHED),
        ("ema", Smooth("ema", 0.7)),
        ("flow", Smooth("flow", 0.6)),
        ("ema:0.6", Smooth("ema", 0.6)),
        ("flow:1", Smooth("flow", 1.0)),
        ("flow:.25", Smooth("flow", 0.25)),
    ],
)
def test_the_option(text: str | None, smooth: Smooth) -> None:
    assert smooth_option(text) == smooth


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Known: ema, flow, none."),
        ("emma", "Did you mean 'ema'? Known: ema, flow, none."),
        ("FLOW", "Known: ema, flow, none."),
        ("none:0.5", "KIND:WEIGHT"),
        ("ema:", "'' is no number"),
        ("ema:a lot", "'a lot' is no number. Write it as in ema:0.6."),
        ("flow:0", "flow:0: expected a weight above 0 and at most 1"),
        ("flow:-0.1", "above 0"),
        ("flow:1.01", "at most 1"),
        ("ema:nan", "at most 1"),
        ("ema:inf", "at most 1"),
        ("ema:0.5:0.5", "'0.5:0.5' is no number"),
    ],
)
def test_other_options_are_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(OptionError) as caught:
        smooth_option(text)
    message = str(caught.value)
    assert says in message
    assert message.startswith("--smooth ")
    assert "\n" not in message


@pytest.mark.parametrize(("kind", "weight"), [("median", 0.6), ("none", 0.6), ("ema", 0.0), ("flow", math.nan)])
def test_a_wrong_smooth_cannot_be_made(kind: str, weight: float) -> None:
    with pytest.raises(OptionError, match="--smooth"):
        Smooth(kind, weight)


# ---- warping


@pytest.mark.parametrize("classes", [1, 2, 5, 64, 65, 130], ids="{} classes".format)
@pytest.mark.parametrize("nearest", [False, True])
def test_warping_by_whole_pixels_is_exact_and_repeats_the_border(classes: int, nearest: bool) -> None:
    previous = random_shares(0, classes, 20, 30)
    rows, columns = np.clip(np.arange(20) + 4, 0, 19), np.clip(np.arange(30) - 3, 0, 29)
    np.testing.assert_array_equal(warp(previous, still(-3, 4, 20, 30), nearest), previous[rows][:, columns])


def test_warping_takes_ids_and_is_bilinear_between_pixels() -> None:
    previous = np.arange(12, dtype=np.float32).reshape(3, 4) ** 2
    between = warp(previous, still(0.25, 0.5, 3, 4))
    assert between.shape == (3, 4)
    top, bottom = (0.75 * previous[i, 1] + 0.25 * previous[i, 2] for i in (0, 1))
    assert between[0, 1] == (top + bottom) / 2
    ids = np.where(disc(60) > 0, 7, 2).astype(np.uint8)
    assert set(np.unique(warp(ids, still(0.4, 0.4), nearest=True))) == {2, 7}
    assert set(np.unique(warp(ids, still(0.4, 0.4)))) > {2, 7}, "so the test can fail"


# ---- the flow


@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (1, 0), (0, -2), (3, 2), (-6, 5)])
def test_the_flow_leads_back_to_the_previous_frame(dx: int, dy: int) -> None:
    wide = texture(height=H + 20, width=W + 20)
    flow = Flow()
    assert flow.step(wide[10 : 10 + H, 10 : 10 + W]) is None
    assert flow.reliable is None
    found = flow.step(wide[10 + dy : 10 + dy + H, 10 + dx : 10 + dx + W])  # what is here was at (+dx, +dy)
    assert found is not None
    assert flow.reliable is not None
    assert (found.dtype, found.shape, flow.reliable.dtype) == (np.float32, (H, W, 2), bool)
    inner = np.s_[16:-16, 16:-16]
    assert np.abs(found[inner] - (dx, dy)).max() < 0.3
    assert flow.reliable[inner].mean() > 0.99


def test_what_was_not_in_the_picture_is_not_reliable() -> None:
    wide = texture(width=W + 20)
    flow = Flow()
    flow.step(wide[:, :W])
    found = flow.step(wide[:, 6 : 6 + W])
    assert found is not None
    assert flow.reliable is not None
    assert not flow.reliable[:, -4:].any()
    assert flow.reliable[:, :-12].mean() > 0.98


@pytest.mark.parametrize(
    ("dx", "dy", "new"),
    [(6, 0, np.s_[:, -6:]), (-6, 0, np.s_[:, :6]), (0, 6, np.s_[-6:]), (0, -6, np.s_[:6]), (0.4, -0.4, np.s_[:0])],
    ids=["right", "left", "below", "above", "within the last pixels"],
)
def test_nor_where_the_grey_is_the_same(dx: float, dy: float, new: Any) -> None:
    flat, expected = np.full((H, W), 90, np.uint8), EVERYWHERE.copy()
    expected[new] = False
    np.testing.assert_array_equal(smoothing._reliable(flat, flat, still(dx, dy)), expected)


def test_what_looks_different_is_not_reliable() -> None:
    before = texture()
    after = before.copy()
    after[30:60, 40:80] = 255 - texture(5)[30:60, 40:80] // 4
    flow = Flow()
    flow.step(before)
    flow.step(after)
    assert flow.reliable is not None
    assert flow.reliable[34:56, 44:76].mean() < 0.2
    assert flow.reliable[:, :20].all()


def test_after_a_cut_there_is_no_flow_until_the_next_frame() -> None:
    flow = Flow()
    found = []
    for seed in (1, 1, 2, 2, 1):
        found.append((flow.step(texture(seed)) is not None, flow.reliable is not None))
    assert found == [(False,) * 2, (True,) * 2, (False,) * 2, (True,) * 2, (False,) * 2]


def test_neither_noise_nor_a_change_of_light_is_a_cut() -> None:
    rng, flow = np.random.default_rng(0), Flow()
    for t in range(6):
        grey = np.clip(texture() * (1 + 0.03 * (-1) ** t) + rng.normal(0, 6, (H, W)), 0, 255).astype(np.uint8)
        assert (flow.step(grey) is not None) == (t > 0)


def test_another_size_starts_anew_and_the_callers_buffer_may_be_used_again() -> None:
    flow = Flow()
    flow.step(texture(height=64))
    buffer = texture()
    assert flow.step(buffer) is None
    buffer[:] = texture(3)
    assert flow.step(buffer) is None, "a cut, which a kept buffer would hide"


# ---- smoothing


def test_ema_is_the_weighted_mean_of_new_and_old() -> None:
    smoother = Smoother(Smooth("ema", 0.6))
    a, b, c = (random_shares(i) for i in range(3))
    assert smoother.step(a, None, None) is a
    first = smoother.step(b, still(5), EVERYWHERE)  # ema does not look at where things went
    np.testing.assert_allclose(first, 0.6 * b + 0.4 * a, atol=1e-6)
    second = smoother.step(c, still(5), ~EVERYWHERE)
    np.testing.assert_allclose(second, 0.6 * c + 0.4 * first, atol=1e-6)


def test_flow_mixes_with_what_was_there_and_takes_the_new_where_it_is_not_reliable() -> None:
    smoother = Smoother(Smooth("flow", 0.75))
    a, b, c = (random_shares(i) for i in range(3))
    reliable = np.random.default_rng(0).random((H, W)) < 0.5
    smoother.step(a, None, None)
    first = smoother.step(b, still(3), reliable)
    moved = a[:, np.clip(np.arange(W) + 3, 0, W - 1)]
    np.testing.assert_allclose(first[reliable], (0.75 * b + 0.25 * moved)[reliable], atol=1e-6)
    np.testing.assert_array_equal(first[~reliable], b[~reliable])
    second = smoother.step(c, still(0, -2), EVERYWHERE)
    np.testing.assert_allclose(
        second, 0.75 * c + 0.25 * first[np.clip(np.arange(H) - 2, 0, H - 1)], atol=1e-6, err_msg="old is the smoothed"
    )


@pytest.mark.parametrize("text", ["ema", "flow"])
def test_after_a_cut_it_starts_with_the_new_frame(text: str) -> None:
    smoother = Smoother(smooth_option(text))
    a, b, c, d = (random_shares(i) for i in range(4))
    smoother.step(a, None, None)
    smoother.step(b, still(), EVERYWHERE)
    assert smoother.step(c, None, None) is c
    weight = smoother.smooth.weight
    np.testing.assert_allclose(smoother.step(d, still(), EVERYWHERE), weight * d + (1 - weight) * c, atol=1e-6)


@pytest.mark.parametrize("text", ["ema:0.2", "flow:0.2"])
def test_shares_sum_to_one_however_long(text: str) -> None:
    smoother = Smoother(smooth_option(text))
    rng = np.random.default_rng(0)
    for t in range(100):
        flow = rng.normal(0, 3, (24, 32, 2)).astype(np.float32) if t else None
        given = random_shares(t, 5, 24, 32)
        shares = smoother.step(given, flow, None if flow is None else rng.random((24, 32)) < 0.9)
        assert shares.dtype == np.float32
        np.testing.assert_allclose(shares.sum(axis=-1), 1, atol=1e-5)
        assert shares.min() >= 0
    np.testing.assert_array_equal(given, random_shares(99, 5, 24, 32), err_msg="what was given is not written to")


def test_a_batch_is_not_kept_for_one_frame_of_it() -> None:
    batch = np.stack([random_shares(i) for i in range(4)])
    smoother = Smoother(Smooth("ema", 0.5))
    smoother.step(batch[0], None, None)
    batch[0] = 0
    np.testing.assert_allclose(
        smoother.step(batch[1], still(), EVERYWHERE), (random_shares(0) + random_shares(1)) / 2, atol=1e-6
    )


# ---- the figure


def test_a_mask_that_moves_with_the_flow_does_not_flicker() -> None:
    follows, does_not = Flicker(), Flicker()
    for t in range(5):
        flow = still(-7) if t else None
        reliable = EVERYWHERE if t else None
        follows.step(disc(40 + 7 * t), flow, reliable)
        does_not.step(disc(40 + 7 * t), None if flow is None else still(), reliable)
    assert follows.mean_iou() == 1
    assert follows.pairs == 4
    assert does_not.mean_iou() < 0.85


def test_the_figure_is_the_mean_over_pairs_of_the_mean_over_classes_that_are_there() -> None:
    flicker = Flicker()
    a, b, c = (np.array([row], np.uint8) for row in ([0, 0, 0, 0, 9, 9], [0, 0, 9, 9, 9, 9], [0, 0, 0, 3, 3, 3]))
    flow, everywhere = still(height=1, width=6), np.ones((1, 6), bool)
    flicker.step(a, None, None)
    flicker.step(b, flow, everywhere)
    assert flicker.mean_iou() == pytest.approx((2 / 4 + 2 / 4) / 2)
    flicker.step(c, flow, everywhere)
    assert flicker.mean_iou() == pytest.approx((1 / 2 + (2 / 3 + 0 + 0) / 3) / 2)


def test_pixels_that_are_not_reliable_do_not_count() -> None:
    counted, not_counted = Flicker(), Flicker()
    reliable = EVERYWHERE.copy()
    reliable[:, 60:] = False
    changed = disc(50)
    changed[:, 60:] = 1
    for t, ids in enumerate((disc(50), changed)):
        counted.step(ids, still() if t else None, EVERYWHERE if t else None)
        not_counted.step(ids, still() if t else None, reliable if t else None)
    assert not_counted.mean_iou() == 1
    assert counted.mean_iou() < 0.8


def test_without_two_frames_there_is_no_figure() -> None:
    flicker = Flicker()
    assert math.isnan(flicker.mean_iou())
    flicker.step(disc(50), None, None)
    assert math.isnan(flicker.mean_iou())
    flicker.step(disc(90), None, None)  # a cut
    assert math.isnan(flicker.mean_iou())
    flicker.step(disc(20), still(), ~EVERYWHERE)
    assert (flicker.pairs, math.isnan(flicker.mean_iou())) == (0, True)
    flicker.step(disc(20), still(), EVERYWHERE)
    assert (flicker.pairs, flicker.mean_iou()) == (1, 1)


# ---- all of it


def video(frames: int = 16, step_px: int = 3, noise: float = 0.35) -> list[tuple[Any, Any, Any]]:
    """(shares, grey, truth): a textured disc moves over a still ground; shares are those of the truth with noise.

    The noise is as wide as the mistakes of a network are.
    """
    rng, ground, cloth, found = np.random.default_rng(0), texture(1), texture(2), []
    for t in range(frames):
        truth = disc(34 + step_px * t)
        grey = np.where(truth > 0, np.roll(cloth, step_px * t, axis=1), ground // 2)
        wrong = cv2.GaussianBlur(rng.normal(size=(H, W)), (0, 0), 2)
        edge = cv2.GaussianBlur(truth.astype(np.float64), (0, 0), 2)
        person = np.clip(edge + noise * wrong / wrong.std(), 0, 1)
        found.append((shares_of(person), grey.astype(np.uint8), truth))
    return found


def accuracy(masks: list[Any], truths: list[Any]) -> float:
    """The mean IoU of the disc."""
    return float(np.mean([(a & b).sum() / (a | b).sum() for a, b in zip(masks, truths, strict=True)]))


def track(tracker: Tracker, frames: list[tuple[Any, Any, Any]]) -> float:
    """The accuracy of what comes out."""
    masks = [tracker.step(shares, grey).argmax(axis=-1) for shares, grey, _ in frames]
    return accuracy(masks, [truth for *_, truth in frames])


def test_smoothing_along_the_flow_steadies_and_does_not_blur() -> None:
    frames = video()
    none, ema, flow = Tracker(), Tracker(Smooth("ema", 0.4)), Tracker(Smooth("flow", 0.4))
    raw, in_place, along = (track(tracker, frames) for tracker in (none, ema, flow))
    assert none.raw.mean_iou() == ema.raw.mean_iou() == flow.raw.mean_iou() == none.smoothed.mean_iou()
    assert none.raw.pairs == len(frames) - 1
    assert flow.smoothed.mean_iou() > flow.raw.mean_iou() + 0.05
    assert ema.smoothed.mean_iou() > ema.raw.mean_iou() + 0.02
    assert along > raw + 0.02
    assert along > in_place + 0.02, "what moves 3 px a frame is not where it was"


def test_a_mask_without_noise_is_steady_as_it_is() -> None:
    tracker = Tracker(smooth_option("flow"))
    assert track(tracker, video(noise=0)) > 0.97
    assert tracker.raw.mean_iou() > 0.97
    assert tracker.smoothed.mean_iou() > 0.97


def test_none_gives_the_very_arrays_back() -> None:
    tracker = Tracker()
    for shares, grey, _ in video(3):
        assert tracker.step(shares, grey) is shares


@pytest.mark.parametrize("text", ["none", "ema", "flow"])
def test_the_flow_is_found_once_a_frame(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    found = smoothing._farneback
    monkeypatch.setattr(smoothing, "_farneback", lambda *frames: calls.append(1) or found(*frames))  # type: ignore[func-returns-value]
    track(Tracker(smooth_option(text)), video(4))
    assert len(calls) == 3


@pytest.mark.parametrize("text", ["ema", "flow"])
def test_frames_after_a_cut_are_as_they_were_and_the_pair_does_not_count(text: str) -> None:
    tracker = Tracker(smooth_option(text))
    frames = video(4)
    other = [(shares[::-1].copy(), texture(7), truth) for shares, _, truth in video(2)]
    out = [tracker.step(shares, grey) for shares, grey, _ in frames + other]
    same = [np.array_equal(a, b[0]) for a, b in zip(out, frames + other, strict=True)]
    assert same == [True, False, False, False, True, False]
    assert tracker.raw.pairs == tracker.smoothed.pairs == 4


def test_a_matte_is_the_person_from_one_half_on() -> None:
    even = shares_of(np.full((H, W), 0.5))
    below = shares_of(np.full((H, W), 0.49))
    figures = []
    for person_from in (None, 0.5, 0.49, 0.6):
        tracker = Tracker(person_from=person_from)
        for shares in (even, below):
            tracker.step(shares, texture())
        figures.append(tracker.raw.mean_iou())
    assert figures == [1, 0, 1, 1], "for None the first of equals is the background"


def test_of_many_classes_it_is_the_highest() -> None:
    ids = np.where(disc(50) > 0, 4, np.where(disc(90) > 0, 2, 0))
    tracker = Tracker(Smooth("ema", 0.5))
    for strength in (0.9, 0.5):
        shares = np.eye(6, dtype=np.float32)[ids] * np.float32(strength) + np.float32((1 - strength) / 6)
        tracker.step(shares, texture())
    assert tracker.raw.mean_iou() == tracker.smoothed.mean_iou() == 1
    tracker.step(np.roll(shares, 1, axis=-1), texture())
    assert tracker.raw.mean_iou() == 0.5


def test_memory_does_not_grow_with_the_video() -> None:
    tracker, frames = Tracker(smooth_option("flow")), video(8)
    sizes = []
    tracemalloc.start()
    try:
        for t in range(160):
            shares, grey, _ = frames[t % 8]
            tracker.step(shares.copy(), grey.copy())
            if t in (20, 159):
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[1] - sizes[0] < frames[0][0].nbytes / 2
