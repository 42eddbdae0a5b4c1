-- Rows whose key the copy has not; none where the copy has not all of its rows, as after a crash of the server.
-- Parts: rows, side, same, all_rows. For people, who run it or not.
DELETE FROM {rows} AS l
 WHERE NOT EXISTS (SELECT FROM {side} AS s WHERE {same})
   AND (SELECT count(*) FROM {side}) = {all_rows};
