-- What differs still after a merge; rows have a key.
-- Parts: side, rows, same, differs. For people, who run it or not.
SELECT (SELECT count(*) FROM {side} AS s WHERE NOT EXISTS (SELECT FROM {rows} AS l WHERE {same})) AS missing,
       (SELECT count(*) FROM {rows} AS l WHERE NOT EXISTS (SELECT FROM {side} AS s WHERE {same})) AS too_many,
       (SELECT count(*)
          FROM {side} AS s
          JOIN {rows} AS l ON {same}
         WHERE {differs})                                                                         AS different;
