-- Cancel a group, in steps: no claim gets jobs of the processed lanes, jobs that return to them end, `cancel_step` ends the rest.
-- uses     base lanes events gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  group
-- ARGV[3]  cause
-- ARGV[4]  upto    the last lane to cancel: 0 at first, then what this returned
-- ARGV[5]  limit   lanes to process
-- returns  the last lane to cancel, 0 at the end; a job enqueued later gets a lane of the same definition and a new number
-- cost     O(limit log n)

local upto = ARGV[4] == '0' and (call('GET', keys.lane_n) or '0') or ARGV[4]
local lanes = call('ZRANGEBYSCORE', q.group_key(ARGV[2]), '-inf', upto, 'LIMIT', 0, tonumber(ARGV[5]))
for _, n in ipairs(lanes) do
  local lane = q.lane_of(tonumber(n))
  q.clear_lane_state(lane)
  call('HDEL', keys.lane_ids, call('HGET', keys.lanes, n))
  call('HSET', keys.cancelled_lanes, n, ARGV[3])
  call('ZREM', q.group_key(ARGV[2]), n)
  if call('EXISTS', lane.list) == 1 then call('ZADD', keys.drain, 0, n) end
end
local last = #lanes < tonumber(ARGV[5])
if last then
  call('HDEL', keys.paused, ARGV[2])
  call('HDEL', keys.resuming, ARGV[2])
end
q.finish()
return last and 0 or tonumber(upto)
