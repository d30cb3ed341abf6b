-- Store or delete the heartbeat of a process, and delete old ones.
-- uses     base
-- KEYS[1]  base
-- ARGV[1]  now_ms     empty for the server's TIME
-- ARGV[2]  id         of the process
-- ARGV[3]  record     opaque; empty: the process has ended
-- ARGV[4]  forget_ms  age at which a heartbeat is deleted
-- ARGV[5]  kept       maximum number of processes
-- returns  1
-- cost     O(log n), and at most 100 deletions

local id, record, forget_ms, kept = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])

local function forget(gone)
  if #gone == 0 then return end
  call('ZREM', keys.beats, unpack(gone))
  call('HDEL', keys.processes, unpack(gone))
end

if record == '' then
  forget({ id })
else
  call('HSET', keys.processes, id, record)
  call('ZADD', keys.beats, now_ms, id)
end
forget(call('ZRANGEBYSCORE', keys.beats, '-inf', now_ms - forget_ms, 'LIMIT', 0, 100))
local over = call('ZCARD', keys.beats) - kept
if over > 0 then forget(call('ZRANGE', keys.beats, 0, math.min(over, 100) - 1)) end
return 1
