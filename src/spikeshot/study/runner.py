"""Points are worked off by several processes, each one point at a time, and their ends recorded.

A process that ends in an error, or is killed, costs its own point and those that need it; the rest
goes on. To stop, every process is told to, and ends with its state on disk.
"""

import multiprocessing
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol, cast

from spikeshot.errors import Interrupted, SpikeshotError
from spikeshot.study.plan import Point

POLL_S = 0.2  # between looks at whether to stop
PATIENCE_S = 120.0  # for processes that were told to stop


class Work(Protocol):
    """What is done for a point in a process of its own; picklable, so a function of a module.

    `tell` takes the share done (0..1); `stop` is asked often, and when it says so the work raises
    `Interrupted` with its state on disk.
    """

    def __call__(
        self, point: Point, tell: Callable[[float], None], stop: Callable[[], bool]
    ) -> None:
        """Do it."""
        ...


@dataclass(frozen=True)
class Status:
    """How far a plan is: points done (finished before, too), failed, running, and the time left.

    `left_s`: seconds, None while nothing is known to reckon with.
    """

    total: int
    done: int
    failed: int
    running: tuple[str, ...]
    left_s: float | None


@dataclass
class _Worker:
    """A process that does one point after another, and the line to it; idle between points."""

    process: SpawnProcess
    line: Connection
    started: float = 0.0
    share: float = 0.0

    def end(self) -> None:
        """Let an idle process end, for it hears that nothing more will come."""
        self.line.close()
        self.process.join()


@dataclass
class _Book:
    """Who waits, runs, is done and has failed."""

    waiting: list[Point]
    done: set[str]
    known: dict[bool, list[float]]  # seconds that points took, by `train`
    total: int
    running: dict[str, _Worker] = field(default_factory=dict)
    idle: list[_Worker] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    points: dict[str, Point] = field(default_factory=dict)


def run_points(
    points: Sequence[Point],
    work: Work,
    *,
    processes: int = 1,
    finished: Mapping[str, float] | None = None,
    on_status: Callable[[Status], None] = lambda status: None,
    on_end: Callable[[Point, str], None] = lambda point, problem: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, str]:
    """Do the work of all points (in order, each behind what it needs); return what failed, and why.

    `finished`: points that need nothing more, and the seconds that they took. `on_end` hears of
    each end, with "" or the reason of a failure. Raises `Interrupted` when `stop` said so and all
    processes have ended.
    """
    finished = finished or {}
    known: dict[bool, list[float]] = {True: [], False: []}
    for point in points:
        if point.name in finished:
            known[point.train].append(finished[point.name])
    waiting = [p for p in points if p.name not in finished]
    kept = {p.name for p in points} & set(finished)
    book = _Book(waiting, kept, known, len(points), points={p.name: p for p in points})
    context = multiprocessing.get_context("spawn")
    try:
        while book.waiting or book.running:
            _fail_orphans(book, on_end)
            while len(book.running) < processes and (ready := _next(book)):
                _begin(book, ready, work, context)
            _listen(book, on_end)
            on_status(_status(book, processes))
            if stop():
                _stop_all(book)
                raise Interrupted(
                    f"stopped with {len(book.done)} of {book.total} points done. Continue with "
                    "--resume."
                )
    finally:
        for running in book.running.values():
            running.process.kill()
            running.process.join()
        for worker in book.idle:
            worker.end()
    return book.failed


def _next(book: _Book) -> Point | None:
    """Take the first point that has all it needs."""
    for point in book.waiting:
        if not point.after or point.after in book.done:
            book.waiting.remove(point)
            return point
    return None


def _fail_orphans(book: _Book, on_end: Callable[[Point, str], None]) -> None:
    """Give up the points whose learner will not come."""
    for point in list(book.waiting):
        if point.after in book.failed:
            book.waiting.remove(point)
            book.failed[point.name] = f"needs point {point.after}, which failed."
            on_end(point, book.failed[point.name])


def _begin(
    book: _Book, point: Point, work: Work, context: multiprocessing.context.SpawnContext
) -> None:
    alive = [w for w in book.idle if w.process.is_alive()]
    if alive:
        worker = alive[0]
        book.idle.remove(worker)
    else:
        ours, theirs = context.Pipe()
        worker = _Worker(context.Process(target=_child, args=(theirs, work)), ours)
        with _signals_held():
            worker.process.start()
        theirs.close()
    with suppress(OSError):  # it has just died, as will be heard
        worker.line.send(point)
    worker.started, worker.share = time.monotonic(), 0.0
    book.running[point.name] = worker


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back what ends a process, so that one that is just starting never hears of it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _listen(book: _Book, on_end: Callable[[Point, str], None]) -> None:
    """Hear what the processes say, for a moment; a line that breaks is a process that died."""
    lines = {running.line: name for name, running in book.running.items()}
    for line in wait(list(lines), timeout=POLL_S):
        line = cast("Connection[Any, Any]", line)
        name = lines[line]
        running, point = book.running[name], book.points[name]
        try:
            word, value = line.recv()
        except (EOFError, OSError):
            running.process.join()
            word, value = "died", f"its process ended with code {running.process.exitcode}."
        if word == "share":
            running.share = value
            continue
        del book.running[name]
        if word != "died":
            book.idle.append(running)
        if word == "done":
            book.done.add(name)
            book.known[point.train].append(time.monotonic() - running.started)
            on_end(point, "")
        else:
            book.failed[name] = value
            on_end(point, value)


def _stop_all(book: _Book) -> None:
    for running in book.running.values():
        try:
            running.line.send("stop")
        except OSError:  # it has just ended
            continue
    deadline = time.monotonic() + PATIENCE_S
    for running in book.running.values():
        running.process.join(max(0.0, deadline - time.monotonic()))


def _status(book: _Book, processes: int) -> Status:
    now, left = time.monotonic(), 0.0
    typical: dict[bool, float | None] = {}
    for kind, seconds in book.known.items():
        guesses = [
            (now - r.started) / r.share
            for n, r in book.running.items()
            if book.points[n].train is kind and r.share > 0.02
        ]
        heard = seconds or guesses
        typical[kind] = sum(heard) / len(heard) if heard else None
    unknown = False
    todo = [(p, 1.0) for p in book.waiting]
    todo += [(book.points[n], 1 - r.share) for n, r in book.running.items()]
    for point, share in todo:
        each = typical[point.train]
        unknown |= each is None
        left += (each or 0.0) * share
    return Status(
        book.total,
        len(book.done),
        len(book.failed),
        tuple(book.running),
        None if unknown else left / max(1, min(processes, len(todo))),
    )


def _child(line: Connection, work: Work) -> None:
    """Do the points that come along the line; what else comes, or its end, means stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it and says so
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        while isinstance(point := line.recv(), Point):
            line.send(_end_of(point, work, line))
    except (EOFError, OSError):  # nothing more will come
        return


def _end_of(point: Point, work: Work, line: Connection) -> tuple[str, str]:
    def tell(share: float) -> None:
        try:
            line.send(("share", share))
        except OSError:  # the parent is gone: `stop` will say so
            return

    try:
        work(point, tell, line.poll)
        return "done", ""
    except SpikeshotError as error:
        return "failed", str(error)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return "failed", f"{type(error).__name__}: {error}"
