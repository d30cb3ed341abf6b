-- Claim: choose a class, in it a lane, take a quantum of it that all its gates admit; until enough.

local VISIT = 4 -- jobs of one lane in one go, though many lanes are ready

-- A repeated nonce gets what the first got, as far as it still holds the leases.
local function memory_key(worker) return base .. 'claim:' .. worker end
local function recall(worker, nonce)
  local memory = call('GET', memory_key(worker))
  if not memory then return nil end
  local of, stale, ids, tokens = unpack(cmsgpack.unpack(memory))
  if of ~= nonce then return nil end
  return stale, ids, tokens
end

local function remember(worker, nonce, stale, ids, tokens, lease_ms)
  call('SET', memory_key(worker), cmsgpack.pack({ nonce, stale, ids, tokens }), 'PX', lease_ms)
end

local function choose_class(ready)
  local chosen, start, other = nil, INF, INF
  for _, class in ipairs(CLASSES) do
    if ready[class] > 0 then
      local at = math.max(clock_of('class:' .. class), clock_of('classes'))
      if at < start then
        chosen, start, other = class, at, start
      else
        other = math.min(other, at)
      end
    end
  end
  return chosen, start, other
end

-- How many jobs of one lane to take in one go: neither classes nor lanes may run far ahead of each other.
local function quantum(class, start, other, share, missing)
  local n = math.min(missing, share)
  if other < INF then
    local weight = CLASS_WEIGHT[class]
    local lead = math.floor((other - start) * weight)
    n = math.min(n, lead > 0 and lead or weight)
  end
  return n
end

local function admitted(lane, at_most)
  local n = at_most
  for _, name in ipairs(lane.gates) do
    local gate = gate_of(name)
    local free = room(gate)
    if free <= 0 then return 0, gate end
    n = math.min(n, free)
  end
  return n
end

-- Grant what of these ids is still a job; returns how many.
local function grant_all(lane, ids, grant)
  local records = call('HMGET', JOBS, unpack(ids))
  local n = 0
  for i, id in ipairs(ids) do
    local record = records[i]
    if not record then
      call('HDEL', CANCELLED, id)
    else
      local job = read_record(record)
      if job.expires_ms > 0 and job.expires_ms <= now_ms then
        end_job('expired', id, lane.n, { token = next_token(), attempt = job.attempts })
      else
        n = n + 1
        grant(lane, id, record)
      end
    end
  end
  return n
end

-- Returns ids, tokens and records of up to `want` jobs.
local function take(worker, want, lease_ms)
  local ids, tokens, records = {}, {}, {}
  -- Written in two calls at the end, however many lanes the batch is made of.
  local leases, ends, end_ms = {}, {}, int(now_ms + lease_ms)
  local function grant(lane, id, record)
    local n, of = #ids + 1, next_token()
    ids[n], tokens[n], records[n] = id, of, record
    leases[2 * n - 1] = id
    leases[2 * n] = pack_lease({ token = of, lane = lane.n, marked = 0, worker = worker })
    ends[2 * n - 1], ends[2 * n] = end_ms, id
  end
  local ready, share = {}, {}
  for _, class in ipairs(CLASSES) do
    ready[class] = call('ZCARD', base .. 'ready:' .. class)
    -- A lane costs as much to visit as three jobs to claim, so a visit is for several.
    share[class] = math.max(math.ceil(want / math.max(ready[class], 1)), VISIT)
  end
  local scans = want + 64
  while #ids < want and scans > 0 do
    local class, start, other = choose_class(ready)
    if not class then break end
    local key = base .. 'ready:' .. class
    local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
    local lane, tag = lane_of(tonumber(first[1])), tonumber(first[2])
    local n, refusing = admitted(lane, quantum(class, start, other, share[class], want - #ids))
    if refusing then
      park(lane, tag, refusing)
      ready[class] = ready[class] - 1
      scans = scans - 1
    else
      local popped = call('LPOP', lane.list, n)
      local granted = grant_all(lane, popped, grant)
      scans = scans - #popped
      deepen(class, -#popped)
      if granted > 0 then
        for _, name in ipairs(lane.gates) do debit(gate_of(name), granted) end
        set_clock('classes', start)
        set_clock('class:' .. class, start + granted / CLASS_WEIGHT[class])
        set_clock('lanes:' .. class, math.max(tag, clock_of('lanes:' .. class)))
      end
      tag = tag + granted / lane.weight
      if #popped < n or call('EXISTS', lane.list) == 0 then
        call('ZREM', key, lane.n)
        call('HDEL', HOME, lane.n)
        call('HSET', TAGS, lane.n, real(tag))
        ready[class] = ready[class] - 1
      else
        call('ZADD', key, real(tag), lane.n)
      end
    end
  end
  call_many('HSET', LEASES, leases)
  call_many('ZADD', IN_FLIGHT, ends)
  count('claimed', #ids)
  return ids, tokens, records
end

-- The earliest instant at which asking again is worth it, ms; 0: nothing is waiting for anything.
local function next_instant()
  for _, class in ipairs(CLASSES) do
    if call('EXISTS', base .. 'ready:' .. class) == 1 then return now_ms, true end
  end
  local at = INF
  for _, key in ipairs({ WAKE, SCHEDULED, IN_FLIGHT }) do
    local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if first[2] then at = math.min(at, tonumber(first[2])) end
  end
  return at == INF and 0 or math.max(at, now_ms), false
end

-- Whether so many events wait for somebody to record them that no more work may be begun. Events that nobody reads are
-- kept up to the same number.
local full = false
local function check_events(cap)
  if call('XLEN', EVENTS) < cap then return end
  if #call('XINFO', 'GROUPS', EVENTS) == 0 then
    call('XTRIM', EVENTS, 'MAXLEN', math.floor(cap * 0.99))
  else
    full = true
    count('full')
  end
end

-- The reply that Python reads: stale ids and the batch in one blob, then the payloads.
local function reply(stale, ids, tokens, records)
  local batch, out = {}, { '' }
  for i, id in ipairs(ids) do
    local job = read_record(records[i])
    local lane = lane_of(job.lane).name
    batch[i] = { id, tokens[i], job.attempts + 1, job.closed + 1, job.expires_ms, lane, job.tokens or {} }
    out[i + 1] = payload_of(records[i])
  end
  local at, ready = next_instant()
  out[1] = cmsgpack.pack({ stale, at, batch, full, ready and not full })
  return out
end

local function reply_again(stale, ids, tokens)
  local leases, records = get_many(LEASES, ids), get_many(JOBS, ids)
  local held_ids, held_tokens, held_records = {}, {}, {}
  for i, id in ipairs(ids) do
    if leases[i] and records[i] and read_lease(leases[i]).token == tokens[i] then
      local n = #held_ids + 1
      held_ids[n], held_tokens[n], held_records[n] = id, tokens[i], records[i]
    end
  end
  return reply(stale, held_ids, held_tokens, held_records)
end

-- House-keeping in bounded steps, so that no other process need tick; then take.
local function claim_batch(worker, want, lease_ms, remember_ms, events_cap)
  sweep()
  forget_old(remember_ms, 100)
  reap(100)
  promote(want + 100)
  wake_gates(64, want)
  check_events(events_cap)
  return take(worker, full and 0 or want, lease_ms)
end
