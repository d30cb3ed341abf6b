-- Names, time, tokens and counters. Every script begins with this.
-- All functions are in one table. The server creates them for every call of a script, and the cost grows with the
-- number of locals that they share, not with the number of functions.
-- KEYS[1] is `pr:{queue}`: all keys share its hash tag, so they live in one slot of a cluster.
-- ARGV[1] is now in ms, or empty for the server's own TIME, which is the only clock that all workers share.

local call, q = redis.call, {}
local INF = math.huge
local CLASSES = { 'urgent', 'normal', 'bulk' }
local CLASS_WEIGHT = { urgent = 8, normal = 4, bulk = 1 }

local base = KEYS[1] .. ':'

-- Keys. Each name is built when it is first used. Where code and server differ, STORED maps the name:
--   jobs        hash    id -> record
--   lanes       hash    number -> definition
--   lane_ids    hash    definition -> number
--   lane_n      string  the last number given to a lane
--   live        hash    number -> jobs of the lane that have not ended, in any state
--   idle        zset    number of a lane without any -> since, ms
--   paused      hash    group -> since, ms
--   resuming    hash    group that is no longer paused -> the last lane that was processed; later ones may have no state yet
--   cancelled_lanes  hash  number -> cause
--   drain       zset    number of a cancelled lane that still lists ids
--   lane_state  hash    number -> 'r' ready, or 'p' and the gate at which it is parked; paused lanes have none
--   tags        hash    number -> virtual time at which an empty lane is ready again
--   vtime       hash    virtual clocks
--   depth       hash    class -> ids in its lanes
--   cancelled   hash    id -> lane that still lists it
--   scheduled   zset    id -> due, ms
--   inflight    zset    id -> end of lease, ms
--   leases      hash    id -> lease
--   uncertain   zset    id -> since, ms
--   held        hash    id -> the lease under which it became uncertain
--   dead        zset    id -> since, ms
--   letters     hash    id -> cause, error and circumstances
--   remembered  hash    id -> ended, ms
--   log:done    list    the last completed jobs, as blocks of their events
--   log:failed  list    the last that died or expired, as their events
--   gates       set     names
--   wake        zset    gate with parked lanes -> time of its next check, ms
--   events      stream
--   token       string  the last token given
--   counters    hash
--   processes   hash    process -> what it is
--   beats       zset    process -> when it was last alive, ms
--   server_epoch  hash  id of this start of the server, the last token before it; cursors of scans
local STORED = { lane_state = 'home', cancelled_lanes = 'doomed', server_epoch = 'life' }  -- names on the server
local keys = setmetatable({}, {
  __index = function(made, name)
    local key = base .. (STORED[name] or name)
    made[name] = key
    return key
  end,
})

local now_us
if ARGV[1] == '' then
  local t = call('TIME')
  now_us = tonumber(t[1]) * 1000000 + tonumber(t[2])
else
  now_us = tonumber(ARGV[1]) * 1000
end
local now_ms = math.floor(now_us / 1000)

-- Lua's own tostring keeps 14 digits, and microseconds have 16.
function q.int(x) return string.format('%.0f', x) end
function q.real(x) return string.format('%.17g', x) end

-- Call a command with any number of arguments: unpack has a limit, and long calls block.
function q.call_many(command, key, args)
  for from = 1, #args, 2000 do
    call(command, key, unpack(args, from, math.min(from + 1999, #args)))
  end
end

-- Fields of a hash, in order; false for a missing field.
function q.get_many(key, fields)
  local found = {}
  for from = 1, #fields, 2000 do
    local part = call('HMGET', key, unpack(fields, from, math.min(from + 1999, #fields)))
    for i = 1, #part do found[from + i - 1] = part[i] end
  end
  return found
end

-- Tokens come from the clock, so that they never repeat, also after the server was emptied. A script draws at most one,
-- for all jobs that it claims or ends: together with the id it is unique.
local token, token_drawn
function q.last_token()
  if not token then token = tonumber(call('GET', keys.token) or 0) end
  return token
end
function q.this_token()
  if not token_drawn then token, token_drawn = math.max(q.last_token() + 1, now_us), true end
  return token
end

local tally, depth = {}, {}
function q.count(what, n) tally[what] = (tally[what] or 0) + (n or 1) end
function q.add_depth(class, n) depth[class] = (depth[class] or 0) + n end

function q.write_base()
  if token_drawn then call('SET', keys.token, q.int(token)) end
  for what, n in pairs(tally) do if n ~= 0 then call('HINCRBY', keys.counters, what, n) end end
  for class, n in pairs(depth) do if n ~= 0 then call('HINCRBY', keys.depth, class, n) end end
  tally, depth = {}, {}
end

-- A job's record: lane, attempts used, claims closed without the act, times of expiry and readiness; the tokens
-- of the last closed claims; payload.
local HEADER, HEADER_SIZE, TOKENS_KEPT = '<I4I4I4dd', 28, 8
function q.pack_record(job, payload)
  local header = struct.pack(HEADER, job.lane, job.attempts, job.closed, job.expires_ms, job.since_ms)
  for _, closed in ipairs(job.tokens or {}) do header = header .. struct.pack('<d', closed) end
  return header .. payload
end
function q.read_record(record)
  local lane, attempts, closed, expires_ms, since_ms = struct.unpack(HEADER, record)
  local job = { lane = lane, attempts = attempts, closed = closed, expires_ms = expires_ms, since_ms = since_ms }
  if closed > 0 then
    job.tokens = { struct.unpack('<' .. string.rep('d', math.min(closed, TOKENS_KEPT)), record, HEADER_SIZE + 1) }
    job.tokens[#job.tokens] = nil -- the position after the last value
  end
  return job
end
function q.expiry_of(record) return (struct.unpack('<d', record, 13)) end
function q.payload_of(record)
  local closed = struct.unpack('<I4', record, 9)
  return string.sub(record, HEADER_SIZE + 8 * math.min(closed, TOKENS_KEPT) + 1)
end

-- The claim of this token ended, and the act did not happen.
function q.close_claim(job, of)
  job.closed = job.closed + 1
  job.tokens = job.tokens or {}
  job.tokens[#job.tokens + 1] = of
  if #job.tokens > TOKENS_KEPT then table.remove(job.tokens, 1) end
end

-- A lease: token, lane, 1 if marked; worker.
local LEASE, LEASE_SIZE = '<dI4B', 13
function q.pack_lease(lease)
  return struct.pack(LEASE, lease.token, lease.lane, lease.marked) .. lease.worker
end
function q.read_lease(packed)
  local of, lane, marked = struct.unpack(LEASE, packed)
  return { token = of, lane = lane, marked = marked, worker = string.sub(packed, LEASE_SIZE + 1) }
end

-- Compare leases with tokens: calls `holds(i, lease)` for each valid one, `lost(i)` for the others.
-- The leases of one claim on one lane are the same string, so they are read once.
function q.each_lease(packed, tokens, holds, lost)
  local last, lease
  for i = 1, #tokens do
    if packed[i] ~= last then
      last = packed[i]
      lease = last and q.read_lease(last)
    end
    if lease and lease.token == tokens[i] then holds(i, lease) else lost(i) end
  end
end
