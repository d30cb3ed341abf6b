-- Return the state of each id. Read-only.
-- uses     base
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  ids     msgpack [id, ...]
-- returns  a state per id, empty for an unknown one
-- cost     O(n log n)

local states = {}
for i, id in ipairs(cmsgpack.unpack(ARGV[2])) do
  local state = ''
  if call('HEXISTS', keys.jobs, id) == 0 then
    if call('HEXISTS', keys.remembered, id) == 1 then state = 'remembered' end
  elseif call('HEXISTS', keys.leases, id) == 1 then
    state = 'in_flight'
  elseif call('ZSCORE', keys.scheduled, id) then
    state = 'scheduled'
  elseif call('ZSCORE', keys.uncertain, id) then
    state = 'uncertain'
  elseif call('ZSCORE', keys.dead, id) then
    state = 'dead'
  else
    state = 'queued'
  end
  states[i] = state
end
return states
