-- Suspend a gate until an instant, or lift that.
-- uses     base lanes events gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms    empty for the server's TIME
-- ARGV[2]  name
-- ARGV[3]  until_ms  0: lift; 9007199254740991: until lifted
-- returns  1
-- cost     O(log G)

local key = base .. 'gate:' .. ARGV[2]
call('SADD', keys.gates, ARGV[2])
if ARGV[3] == '0' then
  call('HDEL', key, 'paused_ms', 'paused_since_ms')
else
  local until_ms = tonumber(call('HGET', key, 'paused_ms') or 0)
  if until_ms <= now_ms then call('HSET', key, 'paused_since_ms', q.int(now_ms)) end
  call('HSET', key, 'paused_ms', ARGV[3])
end
q.gate_of(ARGV[2]).dirty = true
q.finish()
return 1
