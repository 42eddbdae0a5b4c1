-- Rows that the copy has not, or not as often; none where the copy has not all of its rows. Rows have no key.
-- Parts: rows, side, s_row, l_row, all_rows. For people, who run it or not.
DELETE FROM {rows} AS x
 USING (SELECT l.tableoid                               AS pgsteward_table,
               l.ctid                                   AS pgsteward_place,
               {l_row}                                  AS pgsteward_row,
               row_number() OVER (PARTITION BY {l_row}) AS pgsteward_number
          FROM {rows} AS l) AS l
  LEFT JOIN (SELECT {s_row}  AS pgsteward_row,
                    count(*) AS pgsteward_count
               FROM {side} AS s
              GROUP BY 1) AS s
         ON s.pgsteward_row = l.pgsteward_row
 WHERE x.tableoid = l.pgsteward_table
   AND x.ctid = l.pgsteward_place
   AND l.pgsteward_number > coalesce(s.pgsteward_count, 0)
   AND (SELECT count(*) FROM {side}) = {all_rows};
