-- Cancel a group: from now on no claim sees what it holds, and what comes back to it ends. `drain` does the rest.
-- uses     base lanes events gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  group
-- ARGV[3]  cause
-- returns  how many lanes were cancelled; a job enqueued later gets a lane of the same definition and a new number
-- cost     O(its lanes)

local lanes = call('ZRANGE', q.group_key(ARGV[2]), 0, -1)
for _, n in ipairs(lanes) do
  local lane = q.lane_of(tonumber(n))
  q.evict(lane)
  call('HDEL', keys.lane_ids, call('HGET', keys.lanes, n))
  call('HSET', keys.doomed, n, ARGV[3])
  if call('EXISTS', lane.list) == 1 then call('ZADD', keys.drain, 0, n) end
end
call('DEL', q.group_key(ARGV[2]))
call('HDEL', keys.paused, ARGV[2])
q.finish()
return #lanes
