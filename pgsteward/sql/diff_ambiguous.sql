-- How many values of a key are there more than once, or are NULL.
-- Parts: rows (as x), key, nulls. Needs SELECT.
SELECT (SELECT count(*)
          FROM (SELECT FROM {rows} AS x GROUP BY {key} HAVING count(*) > 1) AS several)
     + (SELECT count(*)
          FROM {rows} AS x
         WHERE {nulls}) AS ambiguous;
