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
_IDLE = 3600.0  # seconds after which a page counts as closed


@dataclass
class Session:
    """The state of one page.

    Attributes:
        photo: [3, H, W] in [-1, 1].
        name: file name of the photo, for labels and commands only.
        align: how it is cut, see `zeroshift.inversion.faces.photo_crops`.
        inverted: the photo in a generator, by (source generator, alignment).
        job: id of the running inversion.
        photos: how many photos were sent.
        sheet: the pictures of the explore tab.
        chosen: the number of the picture that is shown large there.
    """

    photo: Tensor | None = None
    name: str = ""
    align: str = "none"
    inverted: dict[tuple[str, str], Inverted] = field(default_factory=dict)
    job: str = ""
    photos: int = 0
    sheet: Sheet | None = None
    chosen: int = 1
    used: float = field(default_factory=time.monotonic)

    def set_photo(self, photo: Tensor, name: str) -> None:
        """Replaces the photo.

        Raises:
            ZeroshiftError: if the page has sent too many.
        """
        if self.photos >= MAX_PHOTOS:
            raise ZeroshiftError(f"This page has sent {MAX_PHOTOS} photos. Load it again to send more.")
        self.photos += 1
        self.photo, self.name, self.align = photo, name, "none"
        self.inverted = {}  # the work on the old photo fills the old one

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
            while len(self._open) > _MOST or session.used - next(iter(self._open.values())).used > _IDLE:
                self._open.popitem(last=False)
            return session

    def close(self, key: str) -> None:
        """Forgets a page with its photo."""
        with self._lock:
            self._open.pop(key, None)
