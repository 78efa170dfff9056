-- The empty database's tables, made once. What comes later has to be a migration that the release before can live with.
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
