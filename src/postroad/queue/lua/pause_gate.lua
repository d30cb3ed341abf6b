-- Pause a gate until a time, or resume it.
-- uses     base lanes events gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms    empty for the server's TIME
-- ARGV[2]  name
-- ARGV[3]  until_ms  0: resume; 9007199254740991: no end; below 0: ms from now
-- returns  1
-- cost     O(log G)

q.notice_clock()
local key, wanted_ms = base .. 'gate:' .. ARGV[2], tonumber(ARGV[3])
if wanted_ms < 0 then wanted_ms = now_ms - wanted_ms end
call('SADD', keys.gates, ARGV[2])
if wanted_ms == 0 then
  call('HDEL', key, 'paused_ms', 'paused_since_ms', 'paused_set_ms')
else
  local until_ms = tonumber(call('HGET', key, 'paused_ms') or 0)
  if until_ms <= now_ms then call('HSET', key, 'paused_since_ms', q.int(now_ms)) end
  call('HSET', key, 'paused_ms', q.int(wanted_ms), 'paused_set_ms', q.int(now_ms))
end
q.forget_gate(ARGV[2])
q.gate_of(ARGV[2]).dirty = true
q.finish()
return 1
