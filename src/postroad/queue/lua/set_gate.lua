-- Set the limits of a gate. Absent ones are removed, except a pause, which only `pause_gate` ends.
-- uses     base lanes events gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms     empty for the server's TIME
-- ARGV[2]  name
-- ARGV[3]  limits     msgpack {count, per_us, burst, limit, left, quota_ms, paused_ms, owner, only}, all optional; `owner`: component that sets them; `only`: absent ones are kept
-- returns  1
-- cost     O(log G)

q.notice_clock()
local name, limits = ARGV[2], cmsgpack.unpack(ARGV[3])
local key = base .. 'gate:' .. name
call('SADD', keys.gates, name)
for _, field in ipairs({ 'count', 'per_us', 'burst', 'limit', 'left', 'quota_ms' }) do
  if limits[field] then
    call('HSET', key, field, q.real(limits[field]))
  elseif not limits.only then
    call('HDEL', key, field)
  end
end
if limits.owner then
  call('HSET', key, 'owner', limits.owner)
elseif not limits.only then
  call('HDEL', key, 'owner')
end
if limits.paused_ms then
  call('HSET', key, 'paused_ms', q.int(limits.paused_ms), 'paused_since_ms', q.int(now_ms), 'paused_set_ms', q.int(now_ms))
end
if limits.left then call('HSET', key, 'quota_token', q.int(q.last_token())) end
q.forget_gate(name)
local gate = q.gate_of(name)
if gate.count then
  -- A faster rate must not wait for what a slower one used in advance.
  gate.tat = math.min(gate.tat, math.ceil(now_us + gate.burst * gate.interval))
end
gate.dirty = true
q.finish()
return 1
