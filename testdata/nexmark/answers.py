#!/usr/bin/env python3
"""The answers to the queries, by SQLite, from the events in a TSV file of `understudy nexmark generate`.

  answers.py EVENTS.tsv DIRECTORY      writes DIRECTORY/q0.txt and so on
  answers.py EVENTS.tsv q5 [BUCKET]    prints the rows of a query, or those of one bucket

An answer is a set of lines, sorted. If they are long, the file holds sums of them instead: lines are put into 256 buckets by
the first byte of their MD5, and a line "3f 351 MD5" says that bucket 3f has 351 lines with this MD5, sorted, each with its
line end.
"""

import hashlib
import pathlib
import re
import sqlite3
import sys

LONGEST = 48 << 10  # bytes of an answer that is kept whole

COLUMNS = {
    "P": ("person", "id name email card city state dateTime extra"),
    "A": ("auction", "id itemName description initialBid reserve dateTime expires seller category extra"),
    "B": ("bid", "auction bidder price dateTime extra"),
}
TEXTS = "name email card city state extra itemName description".split()


def load(path):
    db = sqlite3.connect(":memory:")
    rows = {letter: [] for letter in COLUMNS}
    with open(path, encoding="utf-8", newline="\n") as events:
        for line in events:
            letter, *values = line.rstrip("\n").split("\t")
            rows[letter].append(values)
    for letter, (table, columns) in COLUMNS.items():
        names = columns.split()
        types = ", ".join(f"{n} {'TEXT' if n in TEXTS else 'INTEGER'}" for n in names)
        db.execute(f"CREATE TABLE {table} ({types})")
        db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(names))})", rows[letter])
    db.execute("CREATE INDEX auction_id ON auction(id)")
    db.execute("CREATE INDEX bid_auction ON bid(auction, dateTime)")
    db.execute("CREATE INDEX bid_time ON bid(dateTime)")
    db.execute("ANALYZE")
    return db


def queries():
    text = (pathlib.Path(__file__).parent / "answers.sql").read_text()
    parts = re.split(r"^-- (q\d+).*\n", text, flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2]))


def answer(db, query):
    return sorted(row[0].encode() + b"\n" for row in db.execute(query))


def bucket(line):
    return hashlib.md5(line).hexdigest()[:2]


def summed(lines):
    buckets = {}
    for line in lines:
        buckets.setdefault(bucket(line), []).append(line)
    for name, members in sorted(buckets.items()):
        yield f"{name} {len(members)} {hashlib.md5(b''.join(members)).hexdigest()}\n".encode()


def main(path, target, only=None):
    db, texts = load(path), queries()
    if target in texts:
        lines = answer(db, texts[target])
        sys.stdout.buffer.writelines(line for line in lines if only in (None, bucket(line)))
        return
    directory = pathlib.Path(target)
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        lines = answer(db, text)
        if sum(map(len, lines)) > LONGEST:
            lines = summed(lines)
        (directory / f"{name}.txt").write_bytes(b"".join(lines))


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(*sys.argv[1:])
