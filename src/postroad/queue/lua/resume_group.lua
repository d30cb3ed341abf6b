-- Resume a paused group, in steps. If the caller dies, claims complete them.
-- uses     base lanes events gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  group
-- ARGV[3]  limit   lanes to process
-- returns  1: more steps, 0: complete, -1: the group was not paused
-- cost     O(limit log n)

if call('HDEL', keys.paused, ARGV[2]) == 1 then
  call('HSET', keys.resuming, ARGV[2], 0)
elseif call('HEXISTS', keys.resuming, ARGV[2]) == 0 then
  return -1
end
local more = q.resume_some(ARGV[2], tonumber(ARGV[3]))
q.finish()
return more and 1 or 0
