-- Change limits of a gate. A field that is not named keeps its value, and so does what is used of it.
-- uses     base lanes events gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms     empty for the server's TIME
-- ARGV[2]  name
-- ARGV[3]  changes    msgpack {count, per_us, burst, limit, left, quota_ms, quota_size, owner, paused_ms}, all optional; false: the field is removed
-- returns  1
-- cost     O(log G)

q.notice_clock()
local name, changes = ARGV[2], cmsgpack.unpack(ARGV[3])
local key = base .. 'gate:' .. name
call('SADD', keys.gates, name)
for _, field in ipairs({ 'count', 'per_us', 'burst', 'limit', 'left', 'quota_ms', 'quota_size', 'owner' }) do
  local value = changes[field]
  if value then
    call('HSET', key, field, type(value) == 'number' and q.real(value) or value)
  elseif value == false then
    call('HDEL', key, field)
  end
end
if changes.paused_ms then
  call('HSET', key, 'paused_ms', q.int(changes.paused_ms), 'paused_since_ms', q.int(now_ms), 'paused_set_ms', q.int(now_ms))
end
if changes.left then call('HSET', key, 'quota_token', q.int(q.last_token())) end
q.forget_gate(name)
local gate = q.gate_of(name)
if changes.count then
  -- A faster rate must not wait for what a slower one used in advance.
  gate.tat = math.min(gate.tat, math.ceil(now_us + gate.burst * gate.interval))
end
gate.dirty = true
q.finish()
return 1
