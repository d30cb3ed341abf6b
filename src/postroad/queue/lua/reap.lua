-- End expired leases: release their jobs, or hold those that are marked or were leased before a restart of the server.
-- uses     base lanes events gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  limit   jobs at most
-- returns  jobs released, jobs held as uncertain
-- cost     O(k log I)

local released, uncertain = q.reap(tonumber(ARGV[2]))
q.finish()
return { released, uncertain }
