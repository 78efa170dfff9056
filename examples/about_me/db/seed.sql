-- Insert sample data for development. In other environments the owner of the site writes the projects.
INSERT INTO projects (slug, title, summary, year, link) VALUES
    ('analytical-engine', 'Notes on the Analytical Engine', 'A program for a machine that was never built: the Bernoulli numbers.', 1843, NULL),
    ('flyology', 'Flyology', 'How birds fly, and what a steam-driven one would have to weigh.', 1828, NULL),
    ('poetical-science', 'Poetical science', 'Letters on where imagination begins in mathematics.', 1841, 'https://example.com/letters');

INSERT INTO messages (id, name, email, body) VALUES
    ('00000000-0000-4000-8000-000000000001', 'Charles', 'charles@example.com', 'The engine weaves algebraical patterns.');
