-- Jobs change state here and nowhere else.

-- What leaves is collected and removed in few calls, always before anything is leased in the same script.
local ended, unleased = {}, {}

-- The job is over. Its id stays known until somebody says that the outcome is recorded.
local function end_job(kind, id, lane_n, e)
  ended[#ended + 1] = id
  tie(lane_n, -1)
  e.id = id
  local packed = emit(kind, e)
  if kind == 'expired' then log_failed(packed) end
  count(kind)
end

-- What comes back to a lane that was cancelled ends instead.
local function condemn()
  if not (next(heads) or next(tails)) or call('EXISTS', DOOMED) == 0 then return end
  for _, side in ipairs({ heads, tails }) do
    for n, ids in pairs(side) do
      local cause = call('HGET', DOOMED, n)
      if cause then
        local records = get_many(JOBS, ids)
        for i, id in ipairs(ids) do
          local attempts = read_record(records[i]).attempts
          end_job('cancelled', id, n, { token = this_token(), attempt = attempts, cause = cause })
        end
        side[n] = nil
      end
    end
  end
end

local function write_moves()
  condemn()
  call_many('HDEL', JOBS, ended)
  local remembered, at = {}, int(now_ms)
  for i = 1, #ended do remembered[2 * i - 1], remembered[2 * i] = ended[i], at end
  call_many('HSET', REMEMBERED, remembered)
  call_many('HDEL', LEASES, unleased)
  call_many('ZREM', IN_FLIGHT, unleased)
  ended, unleased = {}, {}
  write_pushes()
end

local function bury(id, lane, e)
  call('ZADD', DEAD, int(now_ms), id)
  call('HSET', LETTERS, id, cmsgpack.pack({ lane.name, e.token, e.attempt, e.cause, e.error }))
  e.id = id
  log_failed(emit('dead', e))
  count('dead')
end

-- Whether the irreversible act happened is not known: hold the job under the token of its lease.
local function hold(id, lease, e)
  call('HSET', HELD, id, pack_lease(lease))
  call('ZADD', UNCERTAIN, int(now_ms), id)
  e.id = id
  emit('uncertain', e)
  count('uncertain')
end

-- Take the job out of flight, wherever its lease lies.
local function unlease(id, lease, refund)
  if lease.held then
    call('HDEL', HELD, id)
    call('ZREM', UNCERTAIN, id)
  else
    unleased[#unleased + 1] = id
    credit(lane_of(lease.lane), 1, refund and lease.token)
  end
end

-- Due jobs go to the tails of their lanes, earliest first.
local function promote(at_most)
  local due = call('ZRANGEBYSCORE', SCHEDULED, '-inf', int(now_ms), 'LIMIT', 0, at_most)
  local records = get_many(JOBS, due)
  for i, id in ipairs(due) do push_tail(read_record(records[i]).lane, id) end
  call_many('ZREM', SCHEDULED, due)
  condemn()
  write_pushes()
  return #due
end

-- A server that was restarted, or a replica that took over, may have lost its last writes: a mark, while it still
-- knows the lease. Returns the last token from before. Claims call this first, so every later lease is of this life.
local function last_doubtful_token()
  local life = (string.match(call('INFO', 'server'), 'run_id:(%x+)') or '')
    .. (string.match(call('INFO', 'replication'), 'master_replid:(%x+)') or '')
  local known = call('HMGET', LIFE, 'id', 'token')
  if known[1] == life then return tonumber(known[2]) end
  call('HSET', LIFE, 'id', life, 'token', int(last_token()))
  return last_token()
end

-- Leases that ran out: a job that is marked, or whose mark may be lost, is uncertain; any other goes back to the head
-- of its lane.
local function reap(at_most)
  local doubtful = last_doubtful_token()
  local over = call('ZRANGEBYSCORE', IN_FLIGHT, '-inf', int(now_ms), 'LIMIT', 0, at_most)
  local leases, records = get_many(LEASES, over), get_many(JOBS, over)
  local given_back, uncertain = 0, 0
  for i, id in ipairs(over) do
    local lease, job = read_lease(leases[i]), read_record(records[i])
    local e = { id = id, token = lease.token, attempt = job.attempts + 1, claim = job.closed + 1, cause = 'lease' }
    local acted = lease.marked == 1 or lease.token <= doubtful
    if lease.marked == 0 and acted then e.cause = 'restart' end
    unlease(id, lease, not acted)
    if acted then
      hold(id, lease, e)
      uncertain = uncertain + 1
    else
      close_claim(job, lease.token)
      call('HSET', JOBS, id, pack_record(job, payload_of(records[i])))
      push_head(job.lane, id)
      emit('released', e)
      count('reaped')
      given_back = given_back + 1
    end
  end
  write_moves()
  return given_back, uncertain
end

-- Ids whose outcome nobody recorded are forgotten in the end. Each call looks at some, in turn.
local function forget_old(remember_ms, look_at)
  local from = call('HGET', LIFE, 'scan') or '0'
  local found = call('HSCAN', REMEMBERED, from, 'COUNT', look_at)
  local old, ids = {}, found[2]
  for i = 1, #ids, 2 do
    if tonumber(ids[i + 1]) <= now_ms - remember_ms then old[#old + 1] = ids[i] end
  end
  call_many('HDEL', REMEMBERED, old)
  if found[1] ~= from then call('HSET', LIFE, 'scan', found[1]) end
end

-- End what stands in lanes that were cancelled. Returns how many ended, of how many ids.
local function drain(at_most)
  local n_ended, looked = 0, 0
  while looked < at_most do
    local n = call('ZRANGE', DRAIN, 0, 0)[1]
    if not n then break end
    local lane, cause = lane_of(tonumber(n)), call('HGET', DOOMED, n)
    local ids = call('LPOP', lane.list, at_most - looked) or {}
    local records = get_many(JOBS, ids)
    for i, id in ipairs(ids) do
      if records[i] then
        local attempts = read_record(records[i]).attempts
        end_job('cancelled', id, lane.n, { token = this_token(), attempt = attempts, cause = cause })
        n_ended = n_ended + 1
      else
        call('HDEL', CANCELLED, id)
      end
    end
    looked = looked + #ids
    deepen(lane.class, -#ids)
    if call('EXISTS', lane.list) == 0 then call('ZREM', DRAIN, n) end
  end
  return n_ended, looked
end

local LANE_IDLE_MS = 3600000

-- Forget lanes that had no job for an hour.
local function forget_lanes(at_most)
  local idle = call('ZRANGEBYSCORE', IDLE, '-inf', int(now_ms - LANE_IDLE_MS), 'LIMIT', 0, at_most)
  for _, n in ipairs(idle) do
    local lane, definition = lane_of(tonumber(n)), call('HGET', LANES, n)
    if call('EXISTS', lane.list) == 1 then
      -- It lists nothing but ids that were cancelled, behind a gate or a pause that keeps claims from them.
      call('ZADD', IDLE, int(now_ms), n)
    else
      if call('HGET', LANE_IDS, definition) == n then call('HDEL', LANE_IDS, definition) end
      for _, key in ipairs({ LANES, TAGS, LIVE, DOOMED }) do call('HDEL', key, n) end
      if lane.group ~= '' then call('ZREM', group_key(lane.group), n) end
      call('ZREM', IDLE, n)
    end
  end
end

local SWEEP_MS = 1000

-- What need not be done in every claim.
local function sweep(remember_ms)
  if now_ms - clock_of('swept') < SWEEP_MS then return end
  set_clock('swept', now_ms)
  forget_old(remember_ms, 500)
  drain(1000)
  forget_lanes(100)
end

local function finish()
  write_moves()
  write_ties()
  write_events()
  write_failed()
  write_gates()
  write_clocks()
  write_base()
end
