-- The first rows that both have and that differ: key, and the values in both.
-- Parts: key, then, now, differs, joined, ordered, shown. Needs SELECT.
SELECT {key}            AS key,
       {then}           AS then,
       {now}            AS now,
       ARRAY[{differs}] AS differs
  FROM {joined}
 ORDER BY {ordered}
 LIMIT {shown};
