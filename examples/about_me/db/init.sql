-- Create the tables of an empty database. This file runs only once. Later changes need a migration that the previous release tolerates.
CREATE TABLE projects (
    slug text PRIMARY KEY CHECK (slug ~ '^[a-z0-9-]+$'),
    title text NOT NULL,
    summary text NOT NULL,
    year integer NOT NULL,
    link text CHECK (link ~ '^https?://')
);

CREATE TABLE messages (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL,
    email text NOT NULL,
    body text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
