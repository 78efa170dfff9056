-- Up Migration
CREATE TABLE products (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    cents integer NOT NULL CHECK (cents > 0),
    sold integer NOT NULL DEFAULT 0
);

CREATE TABLE orders (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer text NOT NULL,
    product integer NOT NULL REFERENCES products,
    quantity integer NOT NULL CHECK (quantity > 0),
    placed_at timestamptz NOT NULL DEFAULT now(),
    confirmed_at timestamptz,
    attempts integer NOT NULL DEFAULT 0
);

CREATE INDEX orders_of_a_customer ON orders (customer, id DESC);
CREATE INDEX orders_to_confirm ON orders (placed_at) WHERE confirmed_at IS NULL;

-- Down Migration
DROP TABLE orders;
DROP TABLE products;
