"""Rights of processes on Linux: giving up those of root, and private small disks."""

import ctypes
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

__all__ = ["Disk", "drop_capabilities", "in_private_mounts"]

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_REMOUNT, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 32, 16384, 1 << 18, 2
_PR_CAPBSET_DROP, _PR_SET_SECUREBITS = 24, 28
PLENTY = 1 << 30
_NO_ROOT = 0b1111  # SECBIT_NOROOT, SECBIT_NO_SETUID_FIXUP and their locks
_CAPABILITY_VERSION = 0x20080522


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def drop_capabilities() -> None:
    """Makes this process and its children subject to file permissions like any owner of files, also for root."""
    for capability in range(64):
        _LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    _LIBC.prctl(_PR_SET_SECUREBITS, _NO_ROOT, 0, 0, 0)  # or root would get them back in a new program
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    _check(_LIBC.capset(header, (ctypes.c_uint32 * 6)()))


def in_private_mounts(function: Callable[[], int]) -> int:
    """Calls a function in a forked process with mounts that no other process sees; needs no root.

    Returns the result of the function.

    Raises:
        OSError: if the system does not allow it.
    """
    reader, writer = os.pipe()
    process = os.fork()
    if process:
        os.close(writer)
        refused = os.read(reader, 4)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if refused:
            number = int.from_bytes(refused, "little")
            raise OSError(number, os.strerror(number))
        return code
    code = 1
    try:
        try:
            _enter_private_mounts()
        except OSError as error:
            os.write(writer, (error.errno or 1).to_bytes(4, "little"))
        else:
            os.close(writer)
            code = function()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _enter_private_mounts() -> None:
    """The same for this process, which must have a single thread.

    Raises:
        OSError: if the system does not allow it.
    """
    user, group = os.geteuid(), os.getegid()
    _check(_LIBC.unshare(_CLONE_NEWUSER | _CLONE_NEWNS))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _check(_LIBC.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None))


class Disk:
    """A small file system in memory, visible to this process and its children only."""

    def __init__(self, folder: Path) -> None:
        self._folder = os.fsencode(folder)
        self._mount(0)

    def resize(self, size: int = PLENTY, files: int = PLENTY) -> None:
        """Another size in bytes and number of files and folders."""
        self._mount(_MS_REMOUNT, size, files)

    @property
    def used(self) -> tuple[int, int]:
        """Bytes, and files and folders, that are in use."""
        state = os.statvfs(self._folder)
        return (state.f_blocks - state.f_bfree) * state.f_frsize, state.f_files - state.f_ffree

    def _mount(self, flags: int, size: int = PLENTY, files: int = PLENTY) -> None:
        options = f"size={size},nr_inodes={files},mode=0755".encode()
        _check(_LIBC.mount(b"tmpfs", self._folder, b"tmpfs", flags, options))

    def remove(self) -> None:
        _check(_LIBC.umount2(self._folder, _MNT_DETACH))
