-- Claim: choose a class and a lane, take a quantum that all its gates admit, and repeat.

local VISIT = 20 -- jobs that are taken from one lane at once, also when many lanes are ready

-- A repeated nonce gets the same reply, without the leases that were settled or lost since.
function q.memory_key(worker) return base .. 'claim:' .. worker end
function q.recall(worker, nonce)
  local memory = call('GET', q.memory_key(worker))
  if not memory then return nil end
  local of, stale, ids, under = unpack(cmsgpack.unpack(memory))
  if of ~= nonce then return nil end
  return stale, ids, under
end

function q.remember(worker, nonce, stale, ids, under, lease_ms)
  call('SET', q.memory_key(worker), cmsgpack.pack({ nonce, stale, ids, under }), 'PX', lease_ms)
end

function q.choose_class(ready)
  local chosen, start, other = nil, INF, INF
  for _, class in ipairs(CLASSES) do
    if ready[class] > 0 then
      local at = math.max(q.clock_of('class:' .. class), q.clock_of('classes'))
      if at < start then
        chosen, start, other = class, at, start
      else
        other = math.min(other, at)
      end
    end
  end
  return chosen, start, other
end

-- Number of jobs to take from one lane at once: neither classes nor lanes may run far ahead of each other.
function q.quantum(class, start, other, share, missing)
  local n = math.min(missing, share)
  if other < INF then
    local weight = CLASS_WEIGHT[class]
    local lead = math.floor((other - start) * weight)
    n = math.min(n, lead > 0 and lead or weight)
  end
  return n
end

function q.admitted(lane, at_most)
  local n = at_most
  for _, name in ipairs(lane.gates) do
    local gate = q.gate_of(name)
    local free = q.capacity(gate)
    if free <= 0 then return 0, gate end
    n = math.min(n, free)
  end
  return n
end

-- Add the ids that are still jobs to a batch. Returns how many.
function q.grant_all(lane, popped, ids, records)
  local found = call('HMGET', keys.jobs, unpack(popped))
  local before = #ids
  for i, id in ipairs(popped) do
    local record = found[i]
    if not record then
      call('HDEL', keys.cancelled, id)
    else
      local expires_ms = q.expiry_of(record)
      if expires_ms > 0 and expires_ms <= now_ms then
        q.end_job('expired', id, lane.n, { token = q.this_token(), attempt = q.read_record(record).attempts })
      else
        ids[#ids + 1], records[#records + 1] = id, record
      end
    end
  end
  return #ids - before
end

-- Lease up to `want` jobs under this script's token. Returns their ids, records and the names of their lanes.
function q.take(worker, want, lease_ms)
  local ids, records, lanes = {}, {}, {}
  -- Written in two calls at the end, for any number of lanes.
  local leases, ends, end_ms = {}, {}, q.int(now_ms + lease_ms)
  local function lease(lane, from)
    local packed = q.pack_lease({ token = q.this_token(), lane = lane.n, marked = 0, worker = worker })
    lanes[lane.n] = lane.name
    for i = from, #ids do
      leases[2 * i - 1], leases[2 * i] = ids[i], packed
      ends[2 * i - 1], ends[2 * i] = end_ms, ids[i]
    end
  end
  local ready, share = {}, {}
  for _, class in ipairs(CLASSES) do
    ready[class] = call('ZCARD', base .. 'ready:' .. class)
    -- A lane costs as much to visit as some ten jobs to claim, so a visit is for several.
    share[class] = math.max(math.ceil(want / math.max(ready[class], 1)), VISIT)
  end
  local scans = want + 64
  while #ids < want and scans > 0 do
    local class, start, other = q.choose_class(ready)
    if not class then break end
    local key = base .. 'ready:' .. class
    local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
    local lane, tag = q.lane_of(tonumber(first[1])), tonumber(first[2])
    local n, refusing = q.admitted(lane, q.quantum(class, start, other, share[class], want - #ids))
    if refusing then
      q.park(lane, tag, refusing)
      ready[class] = ready[class] - 1
      scans = scans - 1
    else
      local popped = call('LPOP', lane.list, n)
      local granted = q.grant_all(lane, popped, ids, records)
      scans = scans - #popped
      q.add_depth(class, -#popped)
      if granted > 0 then
        lease(lane, #ids - granted + 1)
        for _, name in ipairs(lane.gates) do q.debit(q.gate_of(name), granted) end
        q.set_clock('classes', start)
        q.set_clock('class:' .. class, start + granted / CLASS_WEIGHT[class])
        q.set_clock('lanes:' .. class, math.max(tag, q.clock_of('lanes:' .. class)))
      end
      tag = tag + granted / lane.weight
      if #popped < n or call('EXISTS', lane.list) == 0 then
        call('ZREM', key, lane.n)
        call('HDEL', keys.lane_state, lane.n)
        call('HSET', keys.tags, lane.n, q.real(tag))
        ready[class] = ready[class] - 1
      else
        call('ZADD', key, q.real(tag), lane.n)
      end
    end
  end
  q.call_many('HSET', keys.leases, leases)
  q.call_many('ZADD', keys.inflight, ends)
  q.count('claimed', #ids)
  return ids, records, lanes
end

-- Earliest time at which another claim may find a job, ms; 0: no job waits.
function q.next_instant()
  for _, class in ipairs(CLASSES) do
    if call('EXISTS', base .. 'ready:' .. class) == 1 then return now_ms, true end
  end
  local at = INF
  for _, key in ipairs({ keys.wake, keys.scheduled, keys.inflight }) do
    local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if first[2] then at = math.min(at, tonumber(first[2])) end
  end
  return at == INF and 0 or math.max(at, now_ms), false
end

-- Stop claims if too many events are not acknowledged. Without a consumer group, the newest are kept instead.
local full = false
function q.check_events(cap)
  if q.events_waiting() < cap then return end
  if #call('XINFO', 'GROUPS', keys.events) == 0 then
    q.trim_events(q.int(q.clock_of('events') - math.floor(cap * 0.99) + 1) .. '-0')
  else
    full = true
    q.count('full')
  end
end

-- The reply: a packed header, then the records as stored.
function q.reply(stale, ids, under, records, lanes)
  local named = {}
  for n, name in pairs(lanes) do named[#named + 1] = { n, name } end
  local at, ready = q.next_instant()
  table.insert(records, 1, cmsgpack.pack({ stale, at, ids, under, named, full, ready and not full }))
  return records
end

function q.reply_again(stale, ids, under)
  local leases, found = q.get_many(keys.leases, ids), q.get_many(keys.jobs, ids)
  local held, records, lanes = {}, {}, {}
  for i, id in ipairs(ids) do
    local lease = leases[i] and q.read_lease(leases[i])
    if lease and lease.token == under then
      held[#held + 1], records[#records + 1] = id, found[i]
      lanes[lease.lane] = q.lane_of(lease.lane).name
    end
  end
  return q.reply(stale, held, under, records, lanes)
end

-- Maintenance in bounded steps, so that no process need run it; then take.
function q.claim_batch(worker, want, lease_ms, remember_ms, events_cap)
  q.sweep(remember_ms)
  q.reap(100)
  q.promote(want + 100)
  q.wake_gates(64, want)
  q.check_events(events_cap)
  return q.take(worker, full and 0 or want, lease_ms)
end
