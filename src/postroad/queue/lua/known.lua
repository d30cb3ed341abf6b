-- The state of each id. Read-only.
-- uses     base
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  ids     msgpack [id, ...]
-- returns  a state per id, empty for an unknown one
-- cost     O(n log n)

local states = {}
for i, id in ipairs(cmsgpack.unpack(ARGV[2])) do
  local state = ''
  if call('HEXISTS', JOBS, id) == 0 then
    if call('HEXISTS', REMEMBERED, id) == 1 then state = 'remembered' end
  elseif call('HEXISTS', LEASES, id) == 1 then
    state = 'in_flight'
  elseif call('ZSCORE', SCHEDULED, id) then
    state = 'scheduled'
  elseif call('ZSCORE', UNCERTAIN, id) then
    state = 'uncertain'
  elseif call('ZSCORE', DEAD, id) then
    state = 'dead'
  else
    state = 'queued'
  end
  states[i] = state
end
return states
