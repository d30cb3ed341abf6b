-- Gates: their capacity, and the lanes that are parked at them. Read once and written once per script.

local FIELDS = { 'count', 'per_us', 'burst', 'tat', 'limit', 'in_flight', 'left', 'quota_ms', 'quota_token', 'paused_ms' }
local FOREVER = 9007199254740991

local gate_cache = {}
function q.gate_of(name)
  local gate = gate_cache[name]
  if not gate then
    local values = call('HMGET', base .. 'gate:' .. name, unpack(FIELDS))
    gate = { name = name }
    for i, field in ipairs(FIELDS) do gate[field] = tonumber(values[i] or nil) end
    gate.in_flight = gate.in_flight or 0
    gate.tat = gate.tat or 0
    if gate.count then gate.interval = gate.per_us / gate.count end
    gate_cache[name] = gate
  end
  return gate
end

-- Read a gate again after its fields were set directly.
function q.forget_gate(name)
  local gate = gate_cache[name]
  if gate and gate.dirty then q.write_gates() end
  gate_cache[name] = nil
end

-- Number of jobs that a gate admits now. If 0, also the time of the next check, ms (INF: after a change).
function q.capacity(gate)
  local n = INF
  if gate.paused_ms and gate.paused_ms > now_ms then
    return 0, gate.paused_ms >= FOREVER and INF or gate.paused_ms
  end
  if gate.limit then
    n = gate.limit - gate.in_flight
    if n <= 0 then return 0, INF end
  end
  if gate.left and now_ms < gate.quota_ms then
    n = math.min(n, gate.left)
    if n <= 0 then return 0, gate.quota_ms end
  end
  if gate.count then
    -- GCRA: `tat` is the theoretical arrival time of the next job if all came evenly.
    local ahead = math.max(gate.tat - now_us, 0)
    n = math.min(n, math.floor((gate.burst * gate.interval - ahead) / gate.interval + 1e-9))
    if n <= 0 then return 0, math.ceil((gate.tat - (gate.burst - 1) * gate.interval) / 1000) end
  end
  return n
end

-- A gate as a table for Python.
function q.show_gate(name)
  local gate = q.gate_of(name)
  local shown = {}
  for _, field in ipairs(FIELDS) do shown[field] = gate[field] end
  local n = q.capacity(gate)
  local wake = tonumber(call('ZSCORE', keys.wake, name) or nil)
  shown.name = name
  local noted = call('HMGET', base .. 'gate:' .. name, 'paused_since_ms', 'owner', 'quota_size')
  shown.paused_since_ms = tonumber(noted[1] or nil)
  shown.owner = noted[2] or ''
  shown.quota_size = tonumber(noted[3] or nil)
  if gate.count then shown.rate_used = math.max(gate.tat - now_us, 0) / (gate.burst * gate.interval) end
  shown.room = n == INF and -1 or n
  shown.wake_ms = (wake and wake < INF) and math.max(wake, now_ms) or -1
  shown.parked = 0
  for _, class in ipairs(CLASSES) do
    shown.parked = shown.parked + call('ZCARD', base .. 'parked:' .. name .. ':' .. class)
  end
  return shown
end

-- Clamp stored times after the clock stepped back: a rate waits at most for its burst, a pause for as long as it
-- had left when its end was set (`paused_set_ms`; before that was kept, its begin). Each call processes some gates.
function q.clamp_gates(look_at)
  local found = call('SSCAN', keys.gates, call('HGET', keys.server_epoch, 'clamp') or '0', 'COUNT', look_at)
  for _, name in ipairs(found[2]) do
    local gate, key = q.gate_of(name), base .. 'gate:' .. name
    if gate.count then
      local most = math.ceil(now_us + gate.burst * gate.interval)
      if gate.tat > most then gate.tat, gate.dirty = most, true end
    end
    if gate.paused_ms and gate.paused_ms < FOREVER then
      local noted = call('HMGET', key, 'paused_set_ms', 'paused_since_ms')
      local set_ms, since_ms = tonumber(noted[1] or noted[2] or nil), tonumber(noted[2] or nil)
      if set_ms and set_ms > now_ms then
        gate.paused_ms = now_ms + math.max(gate.paused_ms - set_ms, 0)
        call('HSET', key, 'paused_ms', q.int(gate.paused_ms), 'paused_set_ms', q.int(now_ms),
          'paused_since_ms', q.int(math.min(since_ms or now_ms, now_ms)))
      end
    end
    gate.touched = true
  end
  if found[1] == '0' then
    call('HDEL', keys.server_epoch, 'clamp')
  else
    call('HSET', keys.server_epoch, 'clamp', found[1])
  end
end

function q.debit(gate, n)
  gate.in_flight = gate.in_flight + n
  if gate.left and now_ms < gate.quota_ms then gate.left = gate.left - n end
  if gate.count then gate.tat = math.ceil(math.max(gate.tat, now_us) + n * gate.interval) end
  gate.dirty = true
end

-- `n` jobs are no longer in flight. `refund_token`: token of one job without its act; returns what its claim took.
function q.credit(lane, n, refund_token)
  for _, name in ipairs(lane.gates) do
    local gate = q.gate_of(name)
    gate.in_flight = gate.in_flight - n
    gate.dirty = true
    if refund_token then
      -- Tokens only increase: an older one took from the quota before this one.
      if gate.left and now_ms < gate.quota_ms and refund_token > gate.quota_token then gate.left = gate.left + 1 end
      if gate.count then gate.tat = gate.tat - math.floor(gate.interval) end
    end
  end
end

function q.parked_key(gate, class) return base .. 'parked:' .. gate.name .. ':' .. class end

function q.park(lane, tag, gate)
  call('ZREM', base .. 'ready:' .. lane.class, lane.n)
  call('ZADD', q.parked_key(gate, lane.class), q.real(tag), lane.n)
  call('HSET', keys.lane_state, lane.n, 'p' .. gate.name)
  gate.touched = true
end

-- Make lanes of due gates ready: per class, at most as many as the gate admits jobs, and of all gates at most
-- `lanes_at_most` and those of the last gate. A gate that is not reached stays due.
function q.wake_gates(gates_at_most, lanes_at_most)
  local due = call('ZRANGEBYSCORE', keys.wake, '-inf', q.int(now_ms), 'LIMIT', 0, gates_at_most)
  local released = 0
  for _, name in ipairs(due) do
    if released >= lanes_at_most then break end
    local gate = q.gate_of(name)
    local n = math.min(q.capacity(gate), lanes_at_most)
    gate.touched = true
    for _, class in ipairs(n > 0 and CLASSES or {}) do
      local key = q.parked_key(gate, class)
      local freed = call('ZRANGE', key, 0, n - 1, 'WITHSCORES')
      released = released + #freed / 2
      for i = 1, #freed, 2 do
        call('ZREM', key, freed[i])
        q.make_ready(q.lane_of(tonumber(freed[i])), tonumber(freed[i + 1]))
      end
    end
  end
end

function q.write_gates()
  for _, name in ipairs(touched_gates) do q.gate_of(name).touched = true end
  local any_parked = call('EXISTS', keys.wake) == 1
  for name, gate in pairs(gate_cache) do
    if gate.dirty then
      call('HSET', base .. 'gate:' .. name, 'in_flight', q.int(gate.in_flight))
      if gate.left then call('HSET', base .. 'gate:' .. name, 'left', q.int(gate.left)) end
      if gate.count then call('HSET', base .. 'gate:' .. name, 'tat', q.int(gate.tat)) end
    end
    if gate.touched or (gate.dirty and any_parked and call('ZSCORE', keys.wake, name)) then
      local parked = 0
      for _, class in ipairs(CLASSES) do parked = parked + call('ZCARD', q.parked_key(gate, class)) end
      if parked == 0 then
        call('ZREM', keys.wake, name)
      else
        local n, next_ms = q.capacity(gate)
        -- Capacity and still a parked lane: check again at once, or freed capacity might be missed.
        -- 0 and not now: after a step of the clock, now may be in the future.
        call('ZADD', keys.wake, n > 0 and 0 or (next_ms == INF and '+inf' or q.int(next_ms)), name)
      end
    end
    gate.dirty, gate.touched = nil, nil
  end
end
