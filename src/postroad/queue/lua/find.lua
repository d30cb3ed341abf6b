-- All that is known of one id. Read-only.
-- uses     base lanes gates
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  id
-- returns  msgpack {state, ...}, its payload or '', then its events as far as they are kept, the newest first
-- cost     O(history), and for a queued job O(its place in its lane)

local id = ARGV[2]
local record = call('HGET', JOBS, id)
local found = { now_ms = now_ms, state = 'queued' }

if record then
  local job = read_record(record)
  local definition = cmsgpack.unpack(call('HGET', LANES, job.lane))
  found.lane = { definition[1], definition[4], definition[2], definition[3], definition[5] }
  found.attempts, found.closed, found.expires_ms, found.since_ms = job.attempts, job.closed, job.expires_ms, job.since_ms
  found.gates = {}
  for i, name in ipairs(definition[4]) do found.gates[i] = show_gate(name) end
  found.paused_since_ms = tonumber(call('HGET', PAUSED, definition[5]) or nil)
  found.doomed = call('HGET', DOOMED, job.lane) or nil
  local lease, held = call('HGET', LEASES, id), call('HGET', HELD, id)
  if lease or held then
    local read = read_lease(lease or held)
    found.state = lease and 'in_flight' or 'uncertain'
    found.worker, found.marked = read.worker, read.marked == 1
    found.at_ms = tonumber(call('ZSCORE', lease and IN_FLIGHT or UNCERTAIN, id))
  elseif call('ZSCORE', SCHEDULED, id) then
    found.state, found.at_ms = 'scheduled', tonumber(call('ZSCORE', SCHEDULED, id))
  elseif call('ZSCORE', DEAD, id) then
    found.state, found.at_ms = 'dead', tonumber(call('ZSCORE', DEAD, id))
    local letter = cmsgpack.unpack(call('HGET', LETTERS, id))
    found.cause, found.error = letter[4], letter[5]
  else
    local lane = lane_of(job.lane)
    found.ahead = call('LPOS', lane.list, id, 'MAXLEN', 1000000) or nil
    found.lane_depth = call('LLEN', lane.list)
    local home = call('HGET', HOME, job.lane)
    found.parked_on = home and home ~= 'r' and string.sub(home, 2) or nil
  end
else
  local ended_ms = call('ZSCORE', REMEMBERED, id)
  found.state, found.at_ms = ended_ms and 'remembered' or '', tonumber(ended_ms or nil)
end

local out = { cmsgpack.pack(found), record and payload_of(record) or '' }
local function see(packed)
  if string.find(packed, id, 1, true) and cmsgpack.unpack(packed)[2] == id then out[#out + 1] = packed end
end
local stream = call('EXISTS', EVENTS) == 1 and call('XREVRANGE', EVENTS, '+', '-', 'COUNT', 1000) or {}
for _, entry in ipairs(stream) do see(entry[2][2]) end
for _, key in ipairs({ DONE_LOG, FAILED_LOG }) do
  for _, packed in ipairs(call('LRANGE', key, 0, -1)) do see(packed) end
end
return out
