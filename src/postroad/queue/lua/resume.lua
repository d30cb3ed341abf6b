-- Let a group that was paused go on.
-- uses     base lanes events gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  group
-- returns  1 if it was paused, else 0
-- cost     O(its lanes)

local paused = call('HDEL', keys.paused, ARGV[2])
for _, n in ipairs(paused == 1 and call('ZRANGE', q.group_key(ARGV[2]), 0, -1) or {}) do
  local lane = q.lane_of(tonumber(n))
  if call('EXISTS', lane.list) == 1 then q.house(lane) end
end
q.finish()
return paused
