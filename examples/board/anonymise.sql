-- What a copy of the board's data must not tell: who wrote, and what. How much there is, when and in which order stays.
UPDATE messages SET
  author = 'Author ' || id,
  body = 'Message ' || id || ': ' || repeat('x ', greatest(length(body) / 2, 1)),
  summary = CASE WHEN summary IS NULL THEN NULL ELSE 'Summary of message ' || id END;
