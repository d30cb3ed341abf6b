-- Pause a group, in steps: no claim gets jobs of the processed lanes until `resume_group`. Jobs in flight are not affected.
-- uses     base lanes events gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  group
-- ARGV[3]  after   number of the last processed lane, 0 at first
-- ARGV[4]  limit   lanes to process
-- returns  the last processed lane, 0 at the end; later lanes are paused as well
-- cost     O(limit log n)

call('HSETNX', keys.paused, ARGV[2], q.int(now_ms))
call('HDEL', keys.resuming, ARGV[2])
local lanes = call('ZRANGEBYSCORE', q.group_key(ARGV[2]), '(' .. ARGV[3], '+inf', 'LIMIT', 0, tonumber(ARGV[4]))
for _, n in ipairs(lanes) do q.clear_lane_state(q.lane_of(tonumber(n))) end
q.finish()
return #lanes < tonumber(ARGV[4]) and 0 or tonumber(lanes[#lanes])
