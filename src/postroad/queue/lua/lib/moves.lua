-- Jobs change state here and nowhere else.

-- What leaves is collected and removed in few calls, always before anything is leased in the same script.
local ended, unleased = {}, {}

-- The job is over. Its id stays known until somebody says that the outcome is recorded.
function q.end_job(kind, id, lane_n, e)
  ended[#ended + 1] = id
  q.tie(lane_n, -1)
  e.id = id
  local packed = q.emit(kind, e)
  if kind == 'expired' then q.log_failed(packed) end
  q.count(kind)
end

-- What comes back to a lane that was cancelled ends instead.
function q.condemn()
  if not (next(heads) or next(tails)) or call('EXISTS', keys.doomed) == 0 then return end
  for _, side in ipairs({ heads, tails }) do
    for n, ids in pairs(side) do
      local cause = call('HGET', keys.doomed, n)
      if cause then
        local records = q.get_many(keys.jobs, ids)
        for i, id in ipairs(ids) do
          local attempts = q.read_record(records[i]).attempts
          q.end_job('cancelled', id, n, { token = q.this_token(), attempt = attempts, cause = cause })
        end
        side[n] = nil
      end
    end
  end
end

function q.write_moves()
  q.condemn()
  q.call_many('HDEL', keys.jobs, ended)
  local remembered, at = {}, q.int(now_ms)
  for i = 1, #ended do remembered[2 * i - 1], remembered[2 * i] = ended[i], at end
  q.call_many('HSET', keys.remembered, remembered)
  q.call_many('HDEL', keys.leases, unleased)
  q.call_many('ZREM', keys.inflight, unleased)
  ended, unleased = {}, {}
  q.write_pushes()
end

function q.bury(id, lane, e)
  call('ZADD', keys.dead, q.int(now_ms), id)
  call('HSET', keys.letters, id, cmsgpack.pack({ lane.name, e.token, e.attempt, e.cause, e.error }))
  e.id = id
  q.log_failed(q.emit('dead', e))
  q.count('dead')
end

-- Whether the irreversible act happened is not known: hold the job under the token of its lease.
function q.hold(id, lease, e)
  call('HSET', keys.held, id, q.pack_lease(lease))
  call('ZADD', keys.uncertain, q.int(now_ms), id)
  e.id = id
  q.emit('uncertain', e)
  q.count('uncertain')
end

-- Take the job out of flight, wherever its lease lies.
function q.unlease(id, lease, refund)
  if lease.held then
    call('HDEL', keys.held, id)
    call('ZREM', keys.uncertain, id)
  else
    unleased[#unleased + 1] = id
    q.credit(q.lane_of(lease.lane), 1, refund and lease.token)
  end
end

-- Due jobs go to the tails of their lanes, earliest first.
function q.promote(at_most)
  local due = call('ZRANGEBYSCORE', keys.scheduled, '-inf', q.int(now_ms), 'LIMIT', 0, at_most)
  local records = q.get_many(keys.jobs, due)
  for i, id in ipairs(due) do q.push_tail(q.read_record(records[i]).lane, id) end
  q.call_many('ZREM', keys.scheduled, due)
  q.condemn()
  q.write_pushes()
  return #due
end

-- A server that was restarted, or a replica that took over, may have lost its last writes: a mark, while it still
-- knows the lease. Returns the last token from before. Claims call this first, so every later lease is of this life.
function q.last_doubtful_token()
  -- Drawn anew at every start, and whenever a replica becomes a master.
  local life = string.match(call('INFO', 'replication'), 'master_replid:(%x+)')
  local known = call('HMGET', keys.life, 'id', 'token')
  if known[1] == life then return tonumber(known[2]) end
  call('HSET', keys.life, 'id', life, 'token', q.int(q.last_token()))
  return q.last_token()
end

-- Leases that ran out: a job that is marked, or whose mark may be lost, is uncertain; any other goes back to the head
-- of its lane.
function q.reap(at_most)
  local doubtful = q.last_doubtful_token()
  local over = call('ZRANGEBYSCORE', keys.inflight, '-inf', q.int(now_ms), 'LIMIT', 0, at_most)
  local leases, records = q.get_many(keys.leases, over), q.get_many(keys.jobs, over)
  local given_back, uncertain = 0, 0
  for i, id in ipairs(over) do
    local lease, job = q.read_lease(leases[i]), q.read_record(records[i])
    local e = { id = id, token = lease.token, attempt = job.attempts + 1, claim = job.closed + 1, cause = 'lease' }
    local acted = lease.marked == 1 or lease.token <= doubtful
    if lease.marked == 0 and acted then e.cause = 'restart' end
    q.unlease(id, lease, not acted)
    if acted then
      q.hold(id, lease, e)
      uncertain = uncertain + 1
    else
      q.close_claim(job, lease.token)
      call('HSET', keys.jobs, id, q.pack_record(job, q.payload_of(records[i])))
      q.push_head(job.lane, id)
      q.emit('released', e)
      q.count('reaped')
      given_back = given_back + 1
    end
  end
  q.write_moves()
  return given_back, uncertain
end

-- Ids whose outcome nobody recorded are forgotten in the end. Each call looks at some, in turn.
function q.forget_old(remember_ms, look_at)
  local from = call('HGET', keys.life, 'scan') or '0'
  local found = call('HSCAN', keys.remembered, from, 'COUNT', look_at)
  local old, ids = {}, found[2]
  for i = 1, #ids, 2 do
    if tonumber(ids[i + 1]) <= now_ms - remember_ms then old[#old + 1] = ids[i] end
  end
  q.call_many('HDEL', keys.remembered, old)
  if found[1] ~= from then call('HSET', keys.life, 'scan', found[1]) end
end

-- End what stands in lanes that were cancelled. Returns how many ended, of how many ids.
function q.drain(at_most)
  local n_ended, looked = 0, 0
  while looked < at_most do
    local n = call('ZRANGE', keys.drain, 0, 0)[1]
    if not n then break end
    local lane, cause = q.lane_of(tonumber(n)), call('HGET', keys.doomed, n)
    local ids = call('LPOP', lane.list, at_most - looked) or {}
    local records = q.get_many(keys.jobs, ids)
    for i, id in ipairs(ids) do
      if records[i] then
        local attempts = q.read_record(records[i]).attempts
        q.end_job('cancelled', id, lane.n, { token = q.this_token(), attempt = attempts, cause = cause })
        n_ended = n_ended + 1
      else
        call('HDEL', keys.cancelled, id)
      end
    end
    looked = looked + #ids
    q.deepen(lane.class, -#ids)
    if call('EXISTS', lane.list) == 0 then call('ZREM', keys.drain, n) end
  end
  return n_ended, looked
end

local LANE_IDLE_MS = 3600000

-- Forget lanes that had no job for an hour.
function q.forget_lanes(at_most)
  local idle = call('ZRANGEBYSCORE', keys.idle, '-inf', q.int(now_ms - LANE_IDLE_MS), 'LIMIT', 0, at_most)
  for _, n in ipairs(idle) do
    local lane, definition = q.lane_of(tonumber(n)), call('HGET', keys.lanes, n)
    if call('EXISTS', lane.list) == 1 then
      -- It lists nothing but ids that were cancelled, behind a gate or a pause that keeps claims from them.
      call('ZADD', keys.idle, q.int(now_ms), n)
    else
      if call('HGET', keys.lane_ids, definition) == n then call('HDEL', keys.lane_ids, definition) end
      for _, key in ipairs({ keys.lanes, keys.tags, keys.live, keys.doomed }) do call('HDEL', key, n) end
      if lane.group ~= '' then call('ZREM', q.group_key(lane.group), n) end
      call('ZREM', keys.idle, n)
    end
  end
end

-- The server's clock may step back. Then leases would end, and gates would open, later by as much.
function q.notice_clock()
  local behind_ms = q.clock_of('seen') - now_ms
  q.set_clock('seen', now_ms)
  if behind_ms <= 0 then
    if call('HEXISTS', keys.life, 'clamp') == 1 then q.clamp_gates(500) end
    return
  end
  call('HDEL', keys.life, 'clamp')
  q.clamp_gates(500)
  -- Those of live workers are renewed anyway.
  local flying, moved = call('ZREVRANGE', keys.inflight, 0, 9999, 'WITHSCORES'), {}
  for i = 1, #flying, 2 do moved[i], moved[i + 1] = q.int(tonumber(flying[i + 1]) - behind_ms), flying[i] end
  q.call_many('ZADD', keys.inflight, moved)
  q.count('clock_steps_back')
  q.count('clock_stepped_back_ms', behind_ms)
end

local SWEEP_MS = 1000

-- What need not be done in every claim.
function q.sweep(remember_ms)
  local since_ms = now_ms - q.clock_of('swept')
  if since_ms >= 0 and since_ms < SWEEP_MS then return end
  q.set_clock('swept', now_ms)
  q.notice_clock()
  q.forget_old(remember_ms, 500)
  q.drain(1000)
  q.forget_lanes(100)
  if call('EXISTS', keys.resuming) == 1 then q.resume_some(call('HRANDFIELD', keys.resuming), 100) end
end

function q.finish()
  q.write_moves()
  q.write_ties()
  q.write_events()
  q.write_failed()
  q.write_gates()
  q.write_clocks()
  q.write_base()
end
