-- Up Migration
INSERT INTO products (name, cents) VALUES
    ('Areca palm', 2490),
    ('Date palm', 4900),
    ('Dwarf fan palm', 3450),
    ('Kentia palm', 5990),
    ('Parlour palm', 1290);

-- Down Migration
DELETE FROM products;
