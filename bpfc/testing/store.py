"""What a campaign has done and found, in SQLite: readable while it runs, and there to go on from.

campaign   one row: oracles, archs, shard size, when it began
shards     first seed, count, how far it is (next), whether done
totals     one number by name; outcomes and rows too (outcome:..., row:..., branch:...)
programs   digests of programs that ran natively
proved     digests of programs that ran as they were proved, every claim compared
finds      by signature: the smallest case, how often it was seen, whether it is known
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TextIO, final

from bpfc.testing.finds import Find
from ir.diagnostics import Diagnostic, Location, RejectedError, UnreadableError

NAME: Final = "campaign.sqlite"
_SCHEMA: Final = """
create table if not exists campaign (
    id integer primary key check (id = 0), said text not null, began real not null);
create table if not exists shards (
    first integer primary key, count integer not null, next integer not null, done integer not null default 0);
create table if not exists totals (name text primary key, value real not null);
create table if not exists programs (digest integer primary key);
create table if not exists proved (digest integer primary key);
create table if not exists finds (signature text primary key, times integer not null, size integer not null,
    known integer not null default 0, find text not null);
"""


@contextmanager
def kept(folder: Path, *, to_run: bool = False) -> Iterator[Store]:
    """The store in `folder`; `to_run`: no other process may run the campaign meanwhile.

    UnreadableError, here or later, when it is damaged, may not be written or the disk is full: what shards did since the
    last commit is done again. RejectedError when it is being run.
    """
    try:
        with Store(folder) as store:
            if to_run:
                store.lock()
            yield store
    except (sqlite3.Error, OSError) as error:
        said = f"the campaign cannot be kept: {error}"
        raise UnreadableError([Diagnostic("campaign-store", said, Location(file=str(folder)))]) from None


@final
class Store:
    """The database of one campaign; a context manager."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._lock: TextIO | None = None
        self._db = sqlite3.connect(folder / NAME, isolation_level=None)
        self._db.execute("pragma journal_mode = wal")
        self._db.execute("pragma synchronous = normal")
        self._db.executescript(_SCHEMA)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close; twice is fine."""
        self._db.close()
        if self._lock is not None:
            self._lock.close()

    def lock(self) -> None:
        """Keep others from running the campaign until this is closed. Raises RejectedError when one does."""
        self._lock = (self.folder / "lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            said = "another process runs the campaign here"
            at = Location(file=str(self.folder))
            raise RejectedError([Diagnostic("campaign-running", said, at)]) from None

    def begin(self, said: Mapping[str, Any]) -> None:
        """Note what the campaign is."""
        row = (json.dumps(said), time.time())
        self._db.execute("insert or ignore into campaign values (0, ?, ?)", row)

    def campaign(self) -> dict[str, Any] | None:
        """What `begin` noted, None before."""
        row = self._db.execute("select said from campaign").fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def next_seed(self) -> int | None:
        """The first seed that no shard has, None when there is no shard."""
        found: int | None = self._db.execute("select max(first + count) from shards").fetchone()[0]
        return found

    def open_shards(self) -> list[tuple[int, int]]:
        """(next seed, seeds left) of shards that are not done."""
        rows = self._db.execute("select next, first + count - next from shards where not done order by first")
        return [(first, count) for first, count in rows if count > 0]

    def plan(self, first: int, count: int) -> None:
        """A shard is about to start."""
        self._db.execute("insert or ignore into shards values (?, ?, ?, 0)", (first, count, first))

    def add(self, result: Mapping[str, Any]) -> None:
        """Take in what a shard came to (bpfc/testing/supervisor.py), all of it or nothing."""
        self._db.execute("begin immediate")
        shard = self._db.execute(
            "select first, next from shards where first <= ? order by first desc limit 1", (result["first"],)
        ).fetchone()
        if shard is not None and shard[1] > result["first"]:
            self._db.execute("rollback")  # told twice: a worker was thought dead
            return
        if shard is not None:
            self._db.execute(
                "update shards set next = ?, done = ? where first = ?",
                (result["next"], result["done"], shard[0]),
            )
        self._count(result["totals"])
        for table in ("programs", "proved"):
            digests = ((_number(each),) for each in result[table])
            self._db.executemany(f"insert or ignore into {table} values (?)", digests)
        for find in result["finds"]:
            self._find(Find.from_json(find))
        for signature, times in result["repeated"].items():
            self._db.execute("update finds set times = times + ? where signature = ?", (times, signature))
        self._db.execute("commit")

    def _count(self, totals: Mapping[str, float]) -> None:
        sql = (
            "insert into totals values (?, ?) on conflict (name) do update set value = value + excluded.value"
        )
        self._db.executemany(sql, totals.items())

    def _find(self, find: Find) -> None:
        signature, said = find.finding.signature, json.dumps(find.to_json())
        row = self._db.execute("select size from finds where signature = ?", (signature,)).fetchone()
        if row is None:
            self._db.execute("insert into finds values (?, 1, ?, 0, ?)", (signature, find.case.size, said))
        elif find.case.size < row[0]:
            self._db.execute(
                "update finds set times = times + 1, size = ?, find = ? where signature = ?",
                (find.case.size, said, signature),
            )
        else:
            self._db.execute("update finds set times = times + 1 where signature = ?", (signature,))

    def finds(self) -> list[tuple[Find, int, bool]]:
        """(find, how often, whether known), the open ones first."""
        rows = self._db.execute("select find, times, known from finds order by known, times desc, signature")
        return [(Find.from_json(json.loads(said)), times, bool(known)) for said, times, known in rows]

    def signatures(self) -> list[str]:
        """Those of all finds."""
        return [
            signature for (signature,) in self._db.execute("select signature from finds order by signature")
        ]

    def know(self, signatures: Iterable[str]) -> None:
        """These are known bugs: shards do not tell them again."""
        self._db.executemany(
            "update finds set known = 1 where signature = ?", ((each,) for each in signatures)
        )

    def forget(self, signature: str) -> None:
        """This find shows no more: who finds it again has found another."""
        self._db.execute("delete from finds where signature = ?", (signature,))

    def known(self) -> tuple[str, ...]:
        """The signatures of known bugs."""
        rows = self._db.execute("select signature from finds where known order by signature")
        return tuple(signature for (signature,) in rows)

    def totals(self) -> dict[str, float]:
        """Every number by name."""
        return dict(self._db.execute("select name, value from totals"))

    def distinct(self) -> int:
        """How many different programs ran natively."""
        return self._number_of("programs")

    def distinct_proved(self) -> int:
        """How many different programs ran with every claim of their proof compared."""
        return self._number_of("proved")

    def _number_of(self, table: str) -> int:
        count: int = self._db.execute(f"select count(*) from {table}").fetchone()[0]
        return count


def _number(digest: str) -> int:
    """16 hexadecimal digits as SQLite's signed integer."""
    number = int(digest, 16)
    return number - (1 << 64) if number >> 63 else number
