"""A camera through a network, frame by frame, in a window or to files, until somebody has seen enough."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from time import perf_counter

import numpy as np

from segdata.errors import ImageRefused, OptionError
from segdata.formats.cameras import Camera, Window, has_screen
from segdata.formats.images import Pixels
from segdata.formats.videos import Frame, VideoInfo
from segdata.transforms.resize import resize_smooth
from segmodels.networks import Network
from segmodels.predicting.clips import ClipOptions, Motion, grey_of, settle, up_to
from segmodels.predicting.media import Item
from segmodels.predicting.photos import fitted, refused
from segmodels.predicting.rendering import Look, Segmented, picture, segmented
from segmodels.predicting.results import ResultLine
from segmodels.predicting.sinks import Sinks

_RATE = Fraction(30)  # of a file that is told before there is a second frame; each frame keeps its own time


def watch_camera(network: Network, item: Item, options: ClipOptions, out: Path | None) -> ResultLine:
    """Show a camera with what the network says of it, where there is a screen, and write that to ``out`` where given.

    It ends with q in the window, with Ctrl-C, or after the seconds asked for; the files are whole then. What is shown
    is the first that is saved; the overlay for masks. OptionError where there is neither a screen nor ``out``.
    """
    if out is None and not has_screen():
        raise OptionError(f"{item.path}: there is no screen to show it on. Give --out DIR.")
    try:
        with ExitStack() as stack:
            camera = stack.enter_context(Camera(item.number))
            info = VideoInfo(camera.width, camera.height, _RATE)
            sinks = (
                None
                if out is None
                else stack.enter_context(Sinks(out, item.name, options.look, info, options.alpha_video))
            )
            window = stack.enter_context(Window(f"segdata {item.path}: q quits")) if has_screen() else None
            return _watched(network, item, options, camera, info, sinks, window)
    except ImageRefused as error:
        return refused(item, out or Path(), error)


def _watched(
    network: Network,
    item: Item,
    options: ClipOptions,
    camera: Camera,
    info: VideoInfo,
    sinks: Sinks | None,
    window: Window | None,
) -> ResultLine:
    motion, person, last, count, start = Motion(network, options, info), 0.0, Fraction(0), 0, perf_counter()
    writing: list[Future[None]] = []
    with ThreadPoolExecutor(1, "segdata-encode") as encoder:
        try:
            for frame in up_to(options.seconds, camera):
                found = _segmented(frame, info, network, motion, options.look)
                if sinks is not None:
                    writing = [encoder.submit(sinks.write, sinks.pictures(found), frame)]
                person, last, count = person + found.person_share, frame.time, count + 1
                if window is not None and not window.show(_shown(found, options.look)):
                    break
                for one in writing:
                    one.result()
        except KeyboardInterrupt:  # the way to end it where there is no window; a frame that was begun gets whole
            settle(writing)
        for one in writing:
            one.result()
    if not count:
        raise ImageRefused("unreadable", f"{item.path}: it was stopped, or gave no more, after the first frame")
    each_ms = round((perf_counter() - start) * 1000 / count, 2)
    return _line(item, info, sinks, motion, person / count, last, count, each_ms)


def _line(
    item: Item,
    info: VideoInfo,
    sinks: Sinks | None,
    motion: Motion,
    person: float,
    last: Fraction,
    count: int,
    each_ms: float,
) -> ResultLine:
    raw, smoothed = motion.figures()
    return ResultLine(
        input=str(item.path),
        name=item.name,
        kind=item.kind,
        height=info.height,
        width=info.width,
        person_share=round(person, 6),
        files=sinks.files if sinks else (),
        network_ms=each_ms,
        frames=sinks.frames if sinks else count,
        rate=str(((count - 1) / last).limit_denominator(1000)) if last else None,
        seconds=round(float(last), 3),
        consecutive_iou=raw,
        smoothed_consecutive_iou=smoothed,
    )


def _segmented(frame: Frame, info: VideoInfo, network: Network, motion: Motion, look: Look) -> Segmented:
    pixels = frame.pixels
    if pixels.shape[:2] != (info.height, info.width):  # a phone that was turned
        pixels = resize_smooth(pixels, info.height, info.width)
    image = fitted(pixels, network)
    shares = network.shares(image[None])[0]
    return segmented(pixels, motion.smoothed(shares, grey_of(image)), network, look, frame.time)


def _shown(found: Segmented, look: Look) -> Pixels:
    """(H, W, 3) of the first that is saved."""
    save = look.saves[0]
    if save == "alpha":
        return np.repeat(picture("alpha", found, look)[:, :, None], 3, axis=2)
    return picture({"mask": "overlay", "cutout": "gif", "composite": "gif"}.get(save, save), found, look)
