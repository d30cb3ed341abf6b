-- Give back the jobs whose leases ran out, or hold those that are marked or were leased in the server's last life.
-- uses     base lanes events gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  limit   jobs at most
-- returns  how many went back to their lanes, how many became uncertain
-- cost     O(k log I)

local given_back, uncertain = q.reap(tonumber(ARGV[2]))
q.finish()
return { given_back, uncertain }
