"""Where the frames of a video go: a file or a folder of pictures for each kind of picture that is saved."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Self

from segdata.errors import OptionError
from segdata.formats.files import write_atomic
from segdata.formats.images import Pixels
from segdata.formats.videos import KINDS, Frame, VideoInfo, VideoWriter
from segmodels.predicting.rendering import Look, Segmented, encoded, picture

ALPHA_VIDEOS = ("webm", "prores", "png")  # what cut-outs of videos can be written as
_PNG = "png"


def check_alpha_video(kind: str) -> None:
    """OptionError for what a cut-out of a video cannot be written as."""
    if kind not in ALPHA_VIDEOS:
        raise OptionError(f"--alpha-video {kind!r}: expected one of {', '.join(ALPHA_VIDEOS)}.")


def kind_of(save: str, look: Look, alpha_video: str) -> str:
    """What the frames of one kind of picture are written as: ``png`` for a folder of them, else one of KINDS.

    Masks and alpha must stay exact, so they are pictures.
    """
    if save in ("mask", "alpha"):
        return _PNG
    if save == "gif":
        return "gif"
    return alpha_video if save == "cutout" or (save == "composite" and look.behind is None) else "mp4"


class Sinks:
    """The files of one video called ``name`` in the making, each ``SAVE/NAME.SUFFIX`` or ``SAVE/NAME/000000.png``.

    Frames are given in order. A block that ends by an exception leaves videos that play, named NAME.part.SUFFIX.
    ``audio_from`` is the file that ``info`` is of.
    """

    def __init__(
        self, out: Path, name: str, look: Look, info: VideoInfo, alpha_video: str, audio_from: Path | None = None
    ) -> None:
        self.frames = 0
        self._look, self._info, self._audio_from = look, info, audio_from
        self._kinds = {save: kind_of(save, look, alpha_video) for save in look.saves}
        self._paths = {
            save: out / save / (name if kind == _PNG else f"{name}{KINDS[kind].suffix}")
            for save, kind in self._kinds.items()
        }
        self._writers: dict[str, VideoWriter] = {}
        self._stack = ExitStack()

    @property
    def files(self) -> tuple[str, ...]:
        """What is written, relative to the folder."""
        return tuple(f"{path.parent.name}/{path.name}" for path in self._paths.values())

    @property
    def audio(self) -> str | None:
        """What became of the sound: ``copied``, or why not; None where there is none to carry."""
        notes = [writer.audio_note for save, writer in self._writers.items() if save != "gif"]
        return None if self._info.audio is None or not notes else next(filter(None, notes), "copied")

    def __enter__(self) -> Self:
        for save, path in self._paths.items():
            if self._kinds[save] == _PNG:
                path.mkdir(exist_ok=True)
                for old in path.iterdir():  # of a run that was stopped
                    old.unlink()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]

    def pictures(self, found: Segmented) -> dict[str, Pixels | bytes]:
        """What is written of a frame, which any thread may make: pixels, or bytes of a file where it is a picture."""
        made: dict[str, Pixels | bytes] = {}
        for save, kind in self._kinds.items():
            pixels = picture(save, found, self._look)
            made[save] = encoded(save, pixels)[0] if kind == _PNG else pixels
        return made

    def write(self, made: dict[str, Pixels | bytes], frame: Frame) -> None:
        """Append what was made of a frame to all files, shown as long as that."""
        for save, one in made.items():
            if isinstance(one, bytes):
                write_atomic(self._paths[save] / f"{self.frames:06}.png", one, durable=False)
            else:
                self._writer(save, one).write(one, frame.time, frame.duration)
        self.frames += 1

    def _writer(self, save: str, first: Pixels) -> VideoWriter:
        """Opened with its first frame, whose size it has: a collage is as wide as three."""
        if save not in self._writers:
            kind = self._kinds[save]
            height, width = first.shape[:2]
            sound = None if kind == "gif" else self._audio_from
            writer = VideoWriter(self._paths[save], height, width, self._info, kind, sound)
            self._writers[save] = self._stack.enter_context(writer)
        return self._writers[save]
