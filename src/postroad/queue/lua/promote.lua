-- Move due jobs from the schedule into their lanes, and forget ids that were remembered long enough.
-- uses     base lanes events gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms       empty for the server's TIME
-- ARGV[2]  limit        jobs at most
-- ARGV[3]  remember_ms  how long an ended id stays known without an acknowledgement
-- returns  how many were moved
-- cost     O(k log S)

local moved = q.promote(tonumber(ARGV[2]))
q.forget_old(tonumber(ARGV[3]), tonumber(ARGV[2]))
q.finish()
return moved
