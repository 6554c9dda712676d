"""What the studio keeps for each open page, until it closes or is idle: a photo and its inversion."""

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from torch import Tensor

from zeroshift.errors import ZeroshiftError
from zeroshift.inversion.inverted import Inverted
from zeroshift.studio.engine.explorer import Sheet

__all__ = ["MAX_PHOTOS", "Session", "Sessions"]

MAX_PHOTOS = 20
"""Photos that one page may send before it is opened again."""
_MOST = 32  # open pages
_MOST_BYTES = 2**30  # of all pages; the oldest are forgotten first, but never the one that is used
_MOST_INVERSIONS = 4  # of one photo, by generator and alignment
_IDLE = 3600.0  # seconds after which a page counts as closed


@dataclass
class Session:
    """The state of one page.

    Attributes:
        photo: uint8 [3, H, W].
        name: file name of the photo, for labels and commands only.
        align: how it is cut, see `zeroshift.inversion.faces.photo_crops`.
        inverted: the photo in a generator, by (source generator, alignment).
        result: the number of the result that is shown large in the photo tab; 0: as the source redraws the photo.
        job: id of the running inversion.
        photos: how many photos were sent.
        sheet: the pictures of the explore tab.
        chosen: the number of the picture that is shown large there.
    """

    photo: Tensor | None = None
    name: str = ""
    align: str = "none"
    inverted: dict[tuple[str, str], Inverted] = field(default_factory=dict)
    result: int = 1
    job: str = ""
    photos: int = 0
    sheet: Sheet | None = None
    chosen: int = 1
    used: float = field(default_factory=time.monotonic)

    @property
    def nbytes(self) -> int:
        """Size of the photo, its inversions and the pictures of the explore tab, in bytes."""
        photo = 0 if self.photo is None else self.photo.nbytes
        sheet = 0 if self.sheet is None else self.sheet.nbytes
        return photo + sheet + sum(inverted.nbytes for inverted in list(self.inverted.values()))

    def set_photo(self, photo: Tensor, name: str) -> None:
        """Replaces the photo.

        Raises:
            ZeroshiftError: if the page has sent too many.
        """
        if self.photos >= MAX_PHOTOS:
            raise ZeroshiftError(f"This page has sent {MAX_PHOTOS} photos. Load it again to send more.")
        self.photos += 1
        self.photo, self.name, self.align = photo, name, "none"
        self.inverted = {}

    def keep_inverted(self, photo: Tensor, key: tuple[str, str], inverted: Inverted) -> None:
        """Keeps the inversion of a photo, unless the page has another photo by now."""
        if self.photo is not photo:
            return
        self.inverted[key] = inverted
        while len(self.inverted) > _MOST_INVERSIONS:
            del self.inverted[next(iter(self.inverted))]

    def require_photo(self) -> Tensor:
        """The photo.

        Raises:
            ZeroshiftError: if there is none.
        """
        if self.photo is None:
            raise ZeroshiftError("Choose a photo first.")
        return self.photo


class Sessions:
    """The open pages."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def get(self, key: str) -> Session:
        """The session of a page; a new one if it has none."""
        with self._lock:
            session = self._open.setdefault(key, Session())
            session.used = time.monotonic()
            self._open.move_to_end(key)
            while len(self._open) > 1 and self._too_much():
                self._open.popitem(last=False)
            return session

    def _too_much(self) -> bool:
        """Whether the oldest page is to be forgotten."""
        pages = list(self._open.values())
        idle = pages[-1].used - pages[0].used > _IDLE
        return idle or len(pages) > _MOST or sum(page.nbytes for page in pages) > _MOST_BYTES

    def close(self, key: str) -> None:
        """Forgets a page with its photo."""
        with self._lock:
            self._open.pop(key, None)
