-- Method typed-v1: row count and order-free content hash of one table, without its inheritance children.
-- Parts: table (ONLY and its name, or a subquery), cells (what of each row of t is hashed), seed, seed_a, seed_b.
-- Needs SELECT. PostgreSQL 14 and later.
-- The record's hash is linear, so each row's is mixed before it is summed: all 64 bits of it, its halves folded
-- into each other under one seed (which is what hashint8extended does), the upper half alone under the other.
-- OFFSET 0 keeps the planner from hashing each row twice.
SELECT count(*)                                                                     AS row_count,
       coalesce(sum(hashint8extended(q.row_hash, {seed_a})), 0)::text               AS hash_a,
       coalesce(sum(hashint4extended((q.row_hash >> 32)::int4, {seed_b})), 0)::text AS hash_b
  FROM (SELECT hash_record_extended(ROW({cells}), {seed}) AS row_hash
          FROM {table} AS t
        OFFSET 0) AS q
