"""Errors of use: one line that says what is wrong and what to do about it."""

import difflib
import errno
import os
import re
from collections.abc import Iterable


class UsageError(Exception):
    """A mistake of the user's, in one line, which experiments print and exit with status 2."""


class UnreadableImage(UsageError):
    """An image of a data set that cannot be decoded; names it."""


_NO_ROOM = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT)]


def no_room(error: BaseException) -> str | None:
    """Return in a line that a disk is full, and which file it kept out, if that is what happened.

    Also where a library tells it by an error of its own, or met another while it cleaned up.
    """
    seen = []
    while error is not None and error not in seen:
        seen.append(error)
        if told := re.search("|".join(_NO_ROOM), str(error)):
            name = getattr(error, "filename", None)
            path = re.search(r"'(/[^']+)'|\"(/[^\"]+)\"", str(error))
            place = name or (path and (path[1] or path[2]))
            what = f"{told[0]}{f' for {place}' if place else ''}"
            return f"{what}; make room and give the same command again, which goes on"
        error = error.__cause__ or error.__context__
    return None


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not among the known ones, suggesting the nearest.

    Args:
      kind: what is named, such as "model".
      name: the name that was given.
      known: every valid name.
    """
    known = sorted(known)
    by_lower_case = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), by_lower_case, n=3, cutoff=0.6)
    if near:
        hint = f"did you mean {' or '.join(repr(by_lower_case[match]) for match in near)}?"
    elif len(known) <= 20:
        hint = f"known: {', '.join(known)}"
    else:
        hint = f"known: {', '.join(known[:20])}, ... ({len(known)} in all)"
    return UsageError(f"unknown {kind} {name!r}; {hint}")
