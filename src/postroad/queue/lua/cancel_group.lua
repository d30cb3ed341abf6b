-- Cancel a group: from now on no claim sees what it holds, and what comes back to it ends. `drain` does the rest.
-- uses     base lanes events gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  group
-- ARGV[3]  cause
-- returns  how many lanes were cancelled; a job enqueued later gets a lane of the same definition and a new number
-- cost     O(its lanes)

local lanes = call('ZRANGE', group_key(ARGV[2]), 0, -1)
for _, n in ipairs(lanes) do
  local lane = lane_of(tonumber(n))
  evict(lane)
  call('HDEL', LANE_IDS, call('HGET', LANES, n))
  call('HSET', DOOMED, n, ARGV[3])
  if call('EXISTS', lane.list) == 1 then call('ZADD', DRAIN, 0, n) end
end
call('DEL', group_key(ARGV[2]))
call('HDEL', PAUSED, ARGV[2])
finish()
return #lanes
