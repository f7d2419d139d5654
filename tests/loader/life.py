"""The loader's life as a law: what each idiom of a training loop yields, whatever drives the pipeline.

A ``Driver`` says how a loader is made: the library's own, a plain torch ``DataLoader`` or torchdata's. A ``Session`` is
one such loader over a pipeline of its own. A ``Case`` knows how to make sessions of one pipeline, and what an
uninterrupted run of it yields, pass after pass. Each row of the law is a function that takes a case.
"""

from __future__ import annotations

import itertools
import json
import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pytest
from torch.utils.data import DataLoader

import streampipe as sp
from tests.levels import Rows, rows

Pass = list[Rows]
PASSES = 5


@dataclass(frozen=True, eq=False)
class Driver:
    """How a loader is made. ``kind``: ours, torch (a plain DataLoader over the pipeline), or torchdata."""

    name: str
    kind: str
    workers: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def has_state(self) -> bool:
        """A plain DataLoader's workers are out of reach for the parent."""
        return self.kind != "torch" or self.workers == 0


class Session:
    """One loader over one pipeline, as a training loop sees it. Iterating yields rows instead of batches."""

    def __init__(self, driver: Driver, pipe: sp.Pipeline, steps: int | None = None) -> None:
        self.driver = driver
        self.pipe = pipe
        options = {"num_workers": driver.workers, **driver.options}
        self.loader: Any
        if driver.kind == "ours":
            self.loader = pipe.loader(**options, **({} if steps is None else {"steps_per_epoch": steps}))
        elif driver.kind == "torch":
            self.loader = DataLoader(pipe, batch_size=None, **options)
        else:
            stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
            self.loader = stateful(pipe, batch_size=None, **options)

    def __iter__(self) -> Iterator[Rows]:
        return map(rows, iter(self.loader))

    def __len__(self) -> int:
        return len(self.loader)

    def state(self) -> Any:
        """A state as it is after it was saved and read again."""
        if self.driver.kind == "torchdata":
            return pickle.loads(pickle.dumps(self.loader.state_dict()))
        return json.loads(json.dumps((self.pipe if self.driver.kind == "torch" else self.loader).state_dict()))

    def load(self, state: Any) -> Session:
        """Load a state; the session itself, for chaining."""
        (self.pipe if self.driver.kind == "torch" else self.loader).load_state_dict(state)
        return self

    def set_epoch(self, epoch: int) -> None:
        """What the driver's users call at the top of their loop."""
        (self.loader if self.driver.kind == "ours" else self.pipe).set_epoch(epoch)

    def take(self, number: int) -> Pass:
        """So many batches of a new pass, which is then broken off."""
        return list(itertools.islice(self, number))


@dataclass(frozen=True)
class Case:
    """A pipeline, a driver, and what an uninterrupted run yields.

    ``make`` gives a new pipeline each time; it takes ``epochs``. ``steps`` is steps_per_epoch of an endless stream;
    without it a pass is ``epochs`` epochs.
    """

    make: Callable[..., sp.Pipeline]
    driver: Driver
    steps: int | None = None
    epochs: int = 1

    def first(self, passes: int) -> int:
        """What set_epoch calls that pass: its first epoch, or, in a stream that is cut into steps, its number."""
        return passes if self.steps else passes * self.epochs

    def new(self, state: Any = None) -> Session:
        """A session, as a new process would make it."""
        session = Session(self.driver, self.make(epochs=None if self.steps else self.epochs), self.steps)
        return session if state is None else session.load(state)

    @cached_property
    def whole(self) -> list[Pass]:
        """The passes of an uninterrupted run."""
        session = self.new()
        return [list(session) for _ in range(PASSES)]

    @cached_property
    def stream(self) -> Pass:
        """The same batches without the passes' ends."""
        return list(itertools.chain(*self.whole))

    def after(self, number: int, passes: int = 0) -> Any:
        """The state of a run that was killed after so many whole passes, and so many batches of another one."""
        session = self.new()
        for _ in range(passes):
            list(session)
        batches = iter(session)
        assert [next(batches) for _ in range(number)] == self.whole[passes][:number]
        return session.state()

    def goes_on(self, session: Session, number: int, passes: int = 0, further: int = 1) -> None:
        """The session yields what an uninterrupted run would, from batch ``number`` of pass ``passes`` on."""
        expected = [self.whole[passes][number:], *self.whole[passes + 1 : passes + 1 + further]]
        expected = [each for each in expected if each]  # behind the last batch comes the next epoch, whole
        assert [list(session) for _ in expected] == expected


Row = Callable[[Case], None]
ROWS: dict[str, tuple[Row, Callable[[Case], bool]]] = {}
"""By name: the row, and the cases that it can be asked of."""


def row(when: Callable[[Case], bool] = lambda case: True) -> Callable[[Row], Row]:
    """Register a row of the law."""

    def add(function: Row) -> Row:
        ROWS[function.__name__] = function, when
        return function

    return add


def _ours(case: Case) -> bool:
    return case.driver.kind == "ours"


def _stateful(case: Case) -> bool:
    return case.driver.has_state


def _by_the_pipeline(case: Case) -> bool:
    """The state is ours to give and take, so it is plain and ends where we say."""
    return case.driver.has_state and case.driver.kind != "torchdata"


def _points(case: Case, passes: int = 0) -> list[int]:
    """Steps to stop at: the first, some in the middle, the last but one and the last. Fewer where workers start."""
    total = len(case.whole[passes])
    return [1, total] if case.driver.workers else sorted({0, 1, total // 2, total - 1, total})


# --- a new pass is a new epoch ---


@row()
def every_pass_is_a_new_epoch(case: Case) -> None:
    """``for batch in loader`` again and again."""
    assert all(case.whole)
    assert len({tuple(each) for each in case.whole}) == PASSES, "an order came twice"
    if case.steps:
        assert [len(each) for each in case.whole] == [case.steps] * PASSES


@row(lambda case: case.driver.kind == "ours" and case.steps is not None)
def passes_of_steps_are_cut_from_one_endless_stream(case: Case) -> None:
    """Nothing is lost or repeated where one pass ends and the next begins."""
    endless = Session(case.driver, case.make(epochs=None))
    assert endless.take(len(case.stream)) == case.stream


def _by_islice(session: Session, number: int) -> Pass:
    return list(itertools.islice(session, number))


def _by_zip(session: Session, number: int) -> Pass:
    return [batch for _, batch in zip(range(number), session, strict=False)]


def _by_next(session: Session, number: int) -> Pass:
    batches = iter(session)
    return [next(batches) for _ in range(number)]


@row()
def exactly_the_batches_of_a_pass_make_it_whole(case: Case) -> None:
    """islice, ``zip(range(n), loader)`` and next() do not reach StopIteration; the next pass is the next epoch."""
    session = case.new()
    for taking, expected in zip((_by_islice, _by_zip, _by_next, _by_islice), case.whole, strict=False):
        assert taking(session, len(expected)) == expected, taking.__name__
    assert list(session) == case.whole[4]


@row()
def a_break_in_mid_pass(case: Case) -> None:
    """Finite: the next pass is a new epoch. With steps_per_epoch: n steps from where the stream stands."""
    session = case.new()
    assert session.take(2) == case.whole[0][:2]
    if case.steps is None:
        assert list(session) == case.whole[1]
        assert session.take(1) == case.whole[2][:1]
        assert list(session) == case.whole[3]
    else:
        assert list(session) == case.stream[2 : 2 + case.steps]
        assert session.take(1) == case.stream[2 + case.steps : 3 + case.steps]
        assert list(session) == case.stream[3 + case.steps : 3 + 2 * case.steps]


@row(lambda case: _by_the_pipeline(case))
def an_iterator_that_nobody_asks_is_no_pass(case: Case) -> None:
    """A look at the iterator, ``zip(range(0), loader)``: the next pass is the one that it would have been."""
    session = case.new()
    iter(session)
    assert session.take(2) == case.whole[0][:2]
    session = case.new(case.after(2, passes=1))
    iter(session)
    session.set_epoch(case.first(1))
    case.goes_on(session, 2, passes=1)


# --- states ---


@row(_by_the_pipeline)
def a_state_of_any_step_goes_on_there(case: Case) -> None:
    """Before the first batch, in the middle, behind the last one; twice the same, and in plain JSON."""
    session = case.new()
    batches, states = iter(session), [session.state()]
    for expected in case.whole[0]:
        assert next(batches) == expected
        states.append(session.state())
        assert session.state() == states[-1]
    for number in _points(case):
        case.goes_on(case.new(states[number]), number)


@row(_stateful)
def a_state_between_passes_is_the_next_epochs(case: Case) -> None:
    """After StopIteration the usual checkpoint is taken; no epoch is empty, none is skipped."""
    session = case.new()
    for passes in (1, 2):
        list(session)
        state = session.state()
        case.goes_on(case.new(state), 0, passes)


@row(lambda case: case.driver.kind == "torchdata")
def a_state_of_torchdatas_loader_goes_on_at_any_step(case: Case) -> None:
    """Behind the last batch, before StopIteration, its workers still owe an end: the rest may be an empty pass."""
    for number in _points(case)[1:]:
        session = case.new(case.after(number))
        if number < len(case.whole[0]):
            case.goes_on(session, number)
        else:
            first = list(session)
            assert (first or list(session)) == case.whole[1]


@row(_stateful)
def a_state_of_a_later_pass_goes_on_there(case: Case) -> None:
    """The passes before are not forgotten."""
    case.goes_on(case.new(case.after(2, passes=2)), 2, passes=2, further=2)


@row(_by_the_pipeline)
def a_state_of_a_loader_that_was_just_loaded_is_valid_at_once(case: Case) -> None:
    """Loaded, saved, loaded, and stopped again."""
    state = case.after(2)
    again = case.new(state).state()
    case.goes_on(case.new(again), 2)
    session = case.new(again)
    batches = iter(session)
    assert next(batches) == case.whole[0][2]
    case.goes_on(case.new(session.state()), 3)


@row(_by_the_pipeline)
def a_state_names_the_epoch_that_set_epoch_would(case: Case) -> None:
    """In the middle of a pass it is that pass's, behind its last batch and between passes the next one's."""
    assert case.new().state()["epoch"] == 0
    for number, passes, expected in ((2, 1, 1), (len(case.whole[1]) - 1, 1, 1), (len(case.whole[1]), 1, 2), (0, 2, 2)):
        assert case.after(number, passes)["epoch"] == case.first(expected), f"{number} steps behind {passes} passes"
    session = case.new()
    list(session)
    assert session.state()["epoch"] == case.first(1)


@row(_ours)
def a_state_from_another_thread_is_of_what_was_received(case: Case) -> None:
    """A checkpoint callback may run in a thread of its own."""
    session, states = case.new(), []
    batches = iter(session)
    for _ in range(2):
        next(batches)
    thread = threading.Thread(target=lambda: states.append(session.state()))
    thread.start()
    thread.join()
    assert next(batches) == case.whole[0][2], "saving a state changed the pass"
    case.goes_on(case.new(states[0]), 2)


@row(_ours)
def a_state_loaded_into_a_used_loader_goes_on_there(case: Case) -> None:
    """A trainer that goes back to its last checkpoint."""
    state = case.after(2, passes=1)
    session = case.new()
    list(session)
    session.take(3)
    case.goes_on(session.load(state), 2, passes=1)
    case.goes_on(session.load(state), 2, passes=1)


@row(_by_the_pipeline)
def a_state_loaded_while_an_iterator_is_open_ends_it(case: Case) -> None:
    """The old iterator must not go on as if nothing had happened, nor must the state be lost."""
    state = case.after(3)
    session = case.new()
    batches = iter(session)
    next(batches)
    session.load(state)
    with pytest.raises(sp.ConfigError, match="load_state_dict"):
        next(batches)
    case.goes_on(session, 3)


@row(_by_the_pipeline)
def a_state_loaded_after_iter_and_before_the_first_batch_ends_it(case: Case) -> None:
    """The iterator was made before the checkpoint was read."""
    state = case.after(3)
    session = case.new()
    batches = iter(session)
    session.load(state)
    with pytest.raises(sp.ConfigError, match="load_state_dict"):
        next(batches)
    case.goes_on(session, 3)


# --- set_epoch ---


@row()
def set_epoch_at_the_top_of_each_pass_changes_nothing(case: Case) -> None:
    """``for epoch in range(n): loader.set_epoch(epoch)``, as in every DistributedDataParallel loop."""
    session = case.new()
    for passes in range(3):
        session.set_epoch(case.first(passes))
        assert list(session) == case.whole[passes], f"pass {passes}"


@row(lambda case: case.steps is None)
def set_epoch_names_any_epoch(case: Case) -> None:
    """Forwards, backwards, and the same one again; the pass after it is the epoch after it."""
    session = case.new()
    for passes in (3, 1, 1):
        session.set_epoch(case.first(passes))
        assert list(session) == case.whole[passes], f"pass {passes}"
    assert list(session) == case.whole[2]


@row(_stateful)
def set_epoch_of_the_states_epoch_keeps_the_state(case: Case) -> None:
    """load_state_dict, then the loop from the state's epoch on, each with its set_epoch."""
    for number in (0, 2):
        session = case.new(case.after(number, passes=1))
        for passes in (1, 2):
            session.set_epoch(case.first(passes))
            expected = case.whole[passes][number if passes == 1 else 0 :]
            assert list(session) == expected, f"{number} steps, pass {passes}"


@row(_by_the_pipeline)
def set_epoch_of_the_next_epoch_keeps_a_state_behind_the_last_batch(case: Case) -> None:
    """A checkpoint at the end of an epoch, and a loop that begins with the next one."""
    session = case.new(case.after(len(case.whole[0])))
    session.set_epoch(case.first(1))
    assert list(session) == case.whole[1]


@row(lambda case: _by_the_pipeline(case) and case.steps is None)
def set_epoch_of_another_epoch_gives_the_state_up_with_a_warning(case: Case) -> None:
    """That epoch from its beginning, a later or an earlier one."""
    state = case.after(2, passes=1)
    for passes in (3, 0):
        session, got = case.new(state), []
        with pytest.warns(UserWarning, match="given up"):
            _set_epoch_and_go_through(session, case.first(passes), got)
        assert got == case.whole[passes]
        assert list(session) == case.whole[passes + 1]


def _set_epoch_and_go_through(session: Session, epoch: int, got: Pass) -> None:
    session.set_epoch(epoch)
    got += session


# --- one loader, one pass at a time ---


@row(_ours)
def a_newer_iterator_ends_the_older_one(case: Case) -> None:
    """Nested loops and ``zip(loader, loader)`` must not mix two passes, nor go on for ever."""
    session = case.new()
    older = iter(session)
    next(older)
    newer = iter(session)
    next(newer)
    with pytest.raises(sp.ConfigError, match="iterator"):
        next(older)
    next(newer)  # the error does not end the newer one
    session = case.new()
    with pytest.raises(sp.ConfigError, match="iterator"):
        for _ in itertools.islice(zip(session, session, strict=False), 50):
            pass
    session = case.new()
    with pytest.raises(sp.ConfigError, match="iterator"):
        for _ in itertools.islice(session, 50):
            for _ in itertools.islice(session, 50):
                pass


@row(_ours)
def the_length_inside_a_pass_is_the_running_ones(case: Case) -> None:
    """A progress bar or a trainer asks in the last batch's body too. Where nobody knows, it is a TypeError."""
    session = case.new()
    for expected in case.whole[:3]:
        try:
            before = len(session)
        except TypeError:
            return
        inside = [len(session) for _ in session]
        assert {before, *inside} == {len(expected)}, f"before: {before}, inside: {inside}, yielded: {len(expected)}"


@row(_ours)
def two_loaders_over_one_pipeline_do_not_know_of_each_other(case: Case) -> None:
    """Nor do they and a plain pass over the pipeline."""
    session = case.new()
    other = Session(case.driver, session.pipe, case.steps)
    next(iter(other))
    if case.steps is None:
        next(iter(session.pipe))
    assert list(session) == case.whole[0]
    assert list(session) == case.whole[1]
    other.set_epoch(0)
    assert session.state()["epoch"] == case.first(2)
    fresh = Session(case.driver, session.pipe, case.steps)
    assert list(fresh) == case.whole[0]
