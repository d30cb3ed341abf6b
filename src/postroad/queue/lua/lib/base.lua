-- Names, time, tokens and counters. Every script begins with this.
-- KEYS[1] is `pr:{queue}`: all keys share its hash tag, so they live in one slot of a cluster.
-- ARGV[1] is now in ms, or empty for the server's own TIME, which is the only clock that all workers share.

local call = redis.call
local INF = math.huge
local CLASSES = { 'urgent', 'normal', 'bulk' }
local CLASS_WEIGHT = { urgent = 8, normal = 4, bulk = 1 }

local base = KEYS[1] .. ':'
local JOBS = base .. 'jobs'             -- hash    id -> record
local LANES = base .. 'lanes'           -- hash    number -> definition
local LANE_IDS = base .. 'lane_ids'     -- hash    definition -> number
local LANE_N = base .. 'lane_n'         -- string  the last number given to a lane
local LIVE = base .. 'live'             -- hash    number -> jobs of the lane that have not ended, wherever they are
local IDLE = base .. 'idle'             -- zset    number of a lane without any -> since, ms
local PAUSED = base .. 'paused'         -- hash    group -> since, ms
local DOOMED = base .. 'doomed'         -- hash    number of a lane that was cancelled -> cause
local DRAIN = base .. 'drain'           -- zset    number of a cancelled lane that still lists ids
local HOME = base .. 'home'             -- hash    number -> 'r', or 'p' and the gate it is parked on; paused lanes have none
local TAGS = base .. 'tags'             -- hash    number -> virtual time at which an empty lane may come back
local VTIME = base .. 'vtime'           -- hash    virtual clocks
local DEPTH = base .. 'depth'           -- hash    class -> ids in its lanes
local CANCELLED = base .. 'cancelled'   -- hash    id -> lane that still lists it
local SCHEDULED = base .. 'scheduled'   -- zset    id -> due, ms
local IN_FLIGHT = base .. 'inflight'    -- zset    id -> end of lease, ms
local LEASES = base .. 'leases'         -- hash    id -> lease
local UNCERTAIN = base .. 'uncertain'   -- zset    id -> since, ms
local HELD = base .. 'held'             -- hash    id -> the lease under which it became uncertain
local DEAD = base .. 'dead'             -- zset    id -> since, ms
local LETTERS = base .. 'letters'       -- hash    id -> cause, error and circumstances
local REMEMBERED = base .. 'remembered' -- hash    id -> ended, ms
local DONE_LOG = base .. 'log:done'     -- list    the last jobs that ended well, as blocks of their events
local FAILED_LOG = base .. 'log:failed' -- list    the last that died or expired, as their events
local GATES = base .. 'gates'           -- set     names
local WAKE = base .. 'wake'             -- zset    gate with parked lanes -> instant worth looking, ms
local EVENTS = base .. 'events'         -- stream
local TOKEN = base .. 'token'           -- string  the last token given
local COUNTERS = base .. 'counters'     -- hash
local LIFE = base .. 'life'             -- hash    which life of the server this is, and the last token from before it; where a scan goes on

local now_us
if ARGV[1] == '' then
  local t = call('TIME')
  now_us = tonumber(t[1]) * 1000000 + tonumber(t[2])
else
  now_us = tonumber(ARGV[1]) * 1000
end
local now_ms = math.floor(now_us / 1000)

-- Lua's own tostring keeps 14 digits, and microseconds have 16.
local function int(x) return string.format('%.0f', x) end
local function real(x) return string.format('%.17g', x) end

-- Call a command with any number of arguments: unpack has a limit, and long calls block.
local function call_many(command, key, args)
  for from = 1, #args, 2000 do
    call(command, key, unpack(args, from, math.min(from + 1999, #args)))
  end
end

-- Fields of a hash, in order; false where there is none.
local function get_many(key, fields)
  local found = {}
  for from = 1, #fields, 2000 do
    local part = call('HMGET', key, unpack(fields, from, math.min(from + 1999, #fields)))
    for i = 1, #part do found[from + i - 1] = part[i] end
  end
  return found
end

-- Tokens come from the clock, so that they never repeat, even after the server was emptied. A script draws one at the
-- most, for all that it claims or ends: with the id, it is unique.
local token, token_drawn
local function last_token()
  if not token then token = tonumber(call('GET', TOKEN) or 0) end
  return token
end
local function this_token()
  if not token_drawn then token, token_drawn = math.max(last_token() + 1, now_us), true end
  return token
end

local tally, depth = {}, {}
local function count(what, n) tally[what] = (tally[what] or 0) + (n or 1) end
local function deepen(class, n) depth[class] = (depth[class] or 0) + n end

local function write_base()
  if token_drawn then call('SET', TOKEN, int(token)) end
  for what, n in pairs(tally) do if n ~= 0 then call('HINCRBY', COUNTERS, what, n) end end
  for class, n in pairs(depth) do if n ~= 0 then call('HINCRBY', DEPTH, class, n) end end
  tally, depth = {}, {}
end

-- A job's record: lane, attempts used, claims closed without the act, instants of expiry and readiness; the tokens
-- of the last closed claims, none in a job that was never claimed; payload.
local HEADER, HEADER_SIZE, TOKENS_KEPT = '<I4I4I4dd', 28, 8
local function pack_record(job, payload)
  local header = struct.pack(HEADER, job.lane, job.attempts, job.closed, job.expires_ms, job.since_ms)
  for _, closed in ipairs(job.tokens or {}) do header = header .. struct.pack('<d', closed) end
  return header .. payload
end
local function read_record(record)
  local lane, attempts, closed, expires_ms, since_ms = struct.unpack(HEADER, record)
  local job = { lane = lane, attempts = attempts, closed = closed, expires_ms = expires_ms, since_ms = since_ms }
  if closed > 0 then
    job.tokens = { struct.unpack('<' .. string.rep('d', math.min(closed, TOKENS_KEPT)), record, HEADER_SIZE + 1) }
    job.tokens[#job.tokens] = nil -- where unpack came to stand
  end
  return job
end
local function expiry_of(record) return (struct.unpack('<d', record, 13)) end
local function payload_of(record)
  local closed = struct.unpack('<I4', record, 9)
  return string.sub(record, HEADER_SIZE + 8 * math.min(closed, TOKENS_KEPT) + 1)
end

-- The claim of this token ended, and the act did not happen.
local function close_claim(job, of)
  job.closed = job.closed + 1
  job.tokens = job.tokens or {}
  job.tokens[#job.tokens + 1] = of
  if #job.tokens > TOKENS_KEPT then table.remove(job.tokens, 1) end
end

-- A lease: token, lane, 1 if marked; worker.
local LEASE, LEASE_SIZE = '<dI4B', 13
local function pack_lease(lease)
  return struct.pack(LEASE, lease.token, lease.lane, lease.marked) .. lease.worker
end
local function read_lease(packed)
  local of, lane, marked = struct.unpack(LEASE, packed)
  return { token = of, lane = lane, marked = marked, worker = string.sub(packed, LEASE_SIZE + 1) }
end

-- Which of these leases hold, each the one of its token: calls `holds(i, lease)` for those, `lost(i)` for the others.
-- The leases of one claim on one lane are the same string, so they are read once.
local function each_lease(packed, tokens, holds, lost)
  local last, lease
  for i = 1, #tokens do
    if packed[i] ~= last then
      last = packed[i]
      lease = last and read_lease(last)
    end
    if lease and lease.token == tokens[i] then holds(i, lease) else lost(i) end
  end
end
