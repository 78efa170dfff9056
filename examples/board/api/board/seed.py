"""Insert a few messages for development. The program fills only an empty board, so a second run changes nothing."""

import psycopg

from . import settings
from .jobs import enqueue, queue

MESSAGES = (
    ("Ada", "This is the first message of a new environment, so that the board is not empty."),
    ("Grace", "Every message gets a summary from the worker, and the board shows how often it was processed."),
    ("Edsger", "Edit examples/board/api/board/main.py while it runs: the api reloads."),
)


def main() -> None:
    with psycopg.connect(**settings.database()) as connection:
        if connection.execute("SELECT EXISTS (SELECT FROM messages)").fetchone() == (True,):
            print("the board is not empty: nothing to seed")
            return
        sql = "INSERT INTO messages (author, body) VALUES (%s, %s) RETURNING id"
        ids = [connection.execute(sql, message).fetchone()[0] for message in MESSAGES]
    summaries = queue()
    for message in ids:
        enqueue(summaries, message, 0)
    print(f"seeded {len(ids)} messages")


if __name__ == "__main__":
    main()
