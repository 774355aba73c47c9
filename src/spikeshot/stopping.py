"""SIGINT and SIGTERM ask a job to stop; it looks when it can, and ends with its state on disk."""

import signal
import types


class StopSignal:
    """True after the first SIGINT or SIGTERM; a second one ends the process at once.

    Until the job first looks, while it only reads, the first one ends the command at once too.
    """

    def __init__(self) -> None:
        self._asked = self._looked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: types.FrameType | None) -> None:
        if not self._looked:
            raise KeyboardInterrupt
        self._asked = True
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)

    def __call__(self) -> bool:
        """Return whether to stop."""
        self._looked = True
        return self._asked
