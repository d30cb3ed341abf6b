-- Jobs change state here and nowhere else.

-- What leaves is collected and removed in few calls, always before anything is leased in the same script.
local ended, unleased = {}, {}
local function write_moves()
  call_many('HDEL', JOBS, ended)
  local scored = {}
  for i, id in ipairs(ended) do scored[2 * i - 1], scored[2 * i] = int(now_ms), id end
  call_many('ZADD', REMEMBERED, scored)
  call_many('HDEL', LEASES, unleased)
  call_many('ZREM', IN_FLIGHT, unleased)
  ended, unleased = {}, {}
  write_pushes()
end

-- The job is over. Its id stays known until somebody says that the outcome is recorded.
local function end_job(kind, id, e)
  ended[#ended + 1] = id
  e.id = id
  emit(kind, e)
  count(kind)
end

local function bury(id, lane, e)
  call('ZADD', DEAD, int(now_ms), id)
  call('HSET', LETTERS, id, cmsgpack.pack({ lane.name, e.token, e.attempt, e.cause, e.error }))
  e.id = id
  emit('dead', e)
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
    credit(lane_of(lease.lane), refund and lease.token)
  end
end

-- Due jobs go to the tails of their lanes, earliest first.
local function promote(at_most)
  local due = call('ZRANGEBYSCORE', SCHEDULED, '-inf', int(now_ms), 'LIMIT', 0, at_most)
  local records = get_many(JOBS, due)
  for i, id in ipairs(due) do push_tail(read_record(records[i]).lane, id) end
  call_many('ZREM', SCHEDULED, due)
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

-- Ids whose outcome nobody recorded are forgotten in the end.
local function forget_old(remember_ms, at_most)
  local old = call('ZRANGEBYSCORE', REMEMBERED, '-inf', int(now_ms - remember_ms), 'LIMIT', 0, at_most)
  call_many('ZREM', REMEMBERED, old)
end

local function finish()
  write_moves()
  write_gates()
  write_clocks()
  write_base()
end
