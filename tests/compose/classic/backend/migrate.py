import psycopg
from settings import setting

with psycopg.connect(setting("DATABASE_URL")) as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS todos (id serial PRIMARY KEY, text text NOT NULL)")
