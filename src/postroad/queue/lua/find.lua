-- Return state and history of one id. Read-only.
-- uses     base lanes events gates
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  id
-- returns  msgpack {state, ...}, payload or '', then of the stream and the history what holds its events: entries, blocks, events
-- cost     O(history), and for a queued job O(its place in its lane), of which 250,000 are looked at

local id = ARGV[2]
local record = call('HGET', keys.jobs, id)
local found = { now_ms = now_ms, state = 'queued' }

if record then
  local job = q.read_record(record)
  local definition = cmsgpack.unpack(call('HGET', keys.lanes, job.lane))
  found.lane = { definition[1], definition[4], definition[2], definition[3], definition[5] }
  found.attempts, found.closed, found.expires_ms, found.since_ms = job.attempts, job.closed, job.expires_ms, job.since_ms
  found.gates = {}
  for i, name in ipairs(definition[4]) do found.gates[i] = q.show_gate(name) end
  found.paused_since_ms = tonumber(call('HGET', keys.paused, definition[5]) or nil)
  found.cancelled_for = call('HGET', keys.cancelled_lanes, job.lane) or nil
  local lease, held = call('HGET', keys.leases, id), call('HGET', keys.held, id)
  if lease or held then
    local read = q.read_lease(lease or held)
    found.state = lease and 'in_flight' or 'uncertain'
    found.worker, found.marked = read.worker, read.marked == 1
    found.at_ms = tonumber(call('ZSCORE', lease and keys.inflight or keys.uncertain, id))
  elseif call('ZSCORE', keys.scheduled, id) then
    found.state, found.at_ms = 'scheduled', tonumber(call('ZSCORE', keys.scheduled, id))
  elseif call('ZSCORE', keys.dead, id) then
    found.state, found.at_ms = 'dead', tonumber(call('ZSCORE', keys.dead, id))
    local letter = cmsgpack.unpack(call('HGET', keys.letters, id))
    found.cause, found.error = letter[4], letter[5]
  else
    local lane = q.lane_of(job.lane)
    found.ahead = call('LPOS', lane.list, id, 'MAXLEN', 250000) or nil
    found.lane_depth = call('LLEN', lane.list)
    local state = call('HGET', keys.lane_state, job.lane)
    found.parked_on = state and state ~= 'r' and string.sub(state, 2) or nil
  end
else
  local ended_ms = call('HGET', keys.remembered, id)
  found.state, found.at_ms = ended_ms and 'remembered' or '', tonumber(ended_ms or nil)
end

local function names_it(packed) return string.find(packed, id, 1, true) end

-- The newest thousand events of the stream, entry by entry.
local entries, seen, upto = {}, 0, '+'
while seen < 1000 do
  local entry = (call('EXISTS', keys.events) == 1 and call('XREVRANGE', keys.events, upto, '-', 'COUNT', 1) or {})[1]
  if not entry then break end
  local total, n = q.counts_of(entry[1])
  seen, upto = seen + n, '(' .. entry[1]
  for i = 2, #entry[2], 2 do
    if names_it(entry[2][i]) then
      entries[#entries + 1] = entry[2]
      break
    end
  end
end
local blocks, events = {}, {}
for _, logged in ipairs(call('LRANGE', keys['log:done'], 0, -1)) do
  if names_it(logged) then blocks[#blocks + 1] = logged end
end
for _, packed in ipairs(call('LRANGE', keys['log:failed'], 0, -1)) do
  if names_it(packed) then events[#events + 1] = packed end
end
return { cmsgpack.pack(found), record and q.payload_of(record) or '', entries, blocks, events }
