-- Hold back a group: no claim sees its lanes until `resume`. Jobs in flight are not touched.
-- uses     base lanes events gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  group
-- returns  how many lanes it has now; one that comes later is held back as well
-- cost     O(its lanes)

call('HSETNX', keys.paused, ARGV[2], q.int(now_ms))
local lanes = call('ZRANGE', q.group_key(ARGV[2]), 0, -1)
for _, n in ipairs(lanes) do q.evict(q.lane_of(tonumber(n))) end
q.finish()
return #lanes
