"""An sqlite database in memory with an open cursor and transaction, and one in a file."""

import sqlite3

import subject


def body() -> None:
    memory, file = sqlite3.connect(":memory:"), sqlite3.connect(subject.path("db"))
    for base in (memory, file):
        base.execute("create table t (a integer primary key, b text)")
        base.executemany("insert into t values (?, ?)", [(i, "x" * i) for i in range(500)])
        base.commit()
    cursor = memory.execute("select a from t order by a")
    first = [cursor.fetchone()[0] for _ in range(100)]
    file.execute("begin")
    file.execute("delete from t where a >= 250")

    def spoil() -> None:
        memory.execute("delete from t")
        cursor.fetchone()

    subject.wait(spoil)
    subject.expect(first + [row[0] for row in cursor] == list(range(500)), "the cursor goes on elsewhere")
    count = memory.execute("select count(*), sum(length(b)) from t").fetchone()
    subject.expect(count == (500, sum(range(500))), f"the table in memory holds {count}")
    file.rollback()
    subject.expect(file.execute("select count(*) from t").fetchone() == (500,), "the table in the file")
    memory.execute("insert into t values (1000, 'new')")
    file.close()


subject.main(body)
