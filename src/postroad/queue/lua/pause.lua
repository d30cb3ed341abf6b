-- Hold back a group, a step at a time: no claim sees the lanes that were looked at until `resume`. Jobs in flight are not touched.
-- uses     base lanes events gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  group
-- ARGV[3]  after   lanes by number: go on behind this one, 0 at first
-- ARGV[4]  limit   lanes to look at
-- returns  the last lane looked at, 0 at the end; a lane that comes later is held back as well
-- cost     O(limit log n)

call('HSETNX', keys.paused, ARGV[2], q.int(now_ms))
call('HDEL', keys.resuming, ARGV[2])
local lanes = call('ZRANGEBYSCORE', q.group_key(ARGV[2]), '(' .. ARGV[3], '+inf', 'LIMIT', 0, tonumber(ARGV[4]))
for _, n in ipairs(lanes) do q.evict(q.lane_of(tonumber(n))) end
q.finish()
return #lanes < tonumber(ARGV[4]) and 0 or tonumber(lanes[#lanes])
