"""Insert a first note for development. The program fills only an empty table, so a second run changes nothing."""

import psycopg

from . import settings

if __name__ == "__main__":
    with psycopg.connect(**settings.database()) as connection:
        connection.execute(
            "INSERT INTO notes (text) SELECT 'Edit api/app/main.py or web/src, and see it here.'"
            " WHERE NOT EXISTS (SELECT FROM notes)"
        )
