-- Settle jobs, append their events, and claim the next batch.
-- uses     base lanes events gates moves take
-- KEYS[1]  base
-- ARGV[1]  now_ms       empty for the server's TIME
-- ARGV[2]  worker
-- ARGV[3]  nonce        the same nonce again changes nothing and returns the same reply
-- ARGV[4]  want         jobs to claim, 0 to 1000
-- ARGV[5]  lease_ms
-- ARGV[6]  remember_ms  how long an ended id stays known without an acknowledgement
-- ARGV[7]  done_kept    completed jobs in the history
-- ARGV[8]  failed_kept  and of those that died or expired
-- ARGV[9]  events_cap   events that wait to be recorded: with so many, nothing is claimed
-- ARGV[10] done         msgpack [[id, ...], [token, ...]]: jobs whose act happened, no id twice
-- ARGV[11] block        the events of those, see lib/events.lua
-- ARGV[12] commands       msgpack [[id, token, verdict, at_ms or 0, delay_ms, cause, error], ...]; at_ms 0: now + delay_ms
-- ARGV[13…] notes       one per command
-- returns  as claim; the stale ids are those whose lease is no longer the one named
-- cost     O(n log I), and that of claim

q.keep_last(ARGV[7], ARGV[8])
local worker, nonce, want = ARGV[2], ARGV[3], tonumber(ARGV[4])
local stale, ids, under = q.recall(worker, nonce)
if stale then return q.reply_again(stale, ids, under) end
stale = {}

-- The lease of a job that is held as uncertain.
local function held_lease(id, of)
  local held = call('HGET', keys.held, id)
  local lease = held and q.read_lease(held)
  if lease and lease.token == of then
    lease.held = true
    return lease
  end
end

-- Most jobs are completed. They are released lane by lane, and only their leases are read.
local function complete(done, tokens, block)
  local mine, missed, per_lane = {}, {}, {}
  q.each_lease(q.get_many(keys.leases, done), tokens, function(i, lease)
    mine[#mine + 1] = done[i]
    per_lane[lease.lane] = (per_lane[lease.lane] or 0) + 1
  end, function(i)
    local lease = held_lease(done[i], tokens[i])
    if lease then
      q.release_lease(done[i], lease)
      q.adjust_live(lease.lane, -1)
      ended[#ended + 1] = done[i]
    else
      missed[#missed + 1] = i - 1
      stale[#stale + 1] = done[i]
    end
  end)
  for n, jobs in pairs(per_lane) do
    q.credit(q.lane_of(n), jobs)
    q.adjust_live(n, -jobs)
  end
  for i = 1, #mine do ended[#ended + 1], released_leases[#released_leases + 1] = mine[i], mine[i] end
  local n = #done - #missed
  q.emit_done(block, n, missed)
  q.log_done(block, n, missed)
  q.count('done', n)
  q.write_moves()
end

local done, tokens = unpack(cmsgpack.unpack(ARGV[10]))
if #done > 0 then complete(done, tokens, ARGV[11]) end

local commands, subjects = cmsgpack.unpack(ARGV[12]), {}
for i, command in ipairs(commands) do subjects[i] = command[1] end
local found, records = q.get_many(keys.leases, subjects), q.get_many(keys.jobs, subjects)

-- The lease that a command names: in flight, or expired and held as uncertain.
local function lease_of(i, id, of)
  local lease = found[i] and q.read_lease(found[i])
  if lease and lease.token == of then return lease end
  return held_lease(id, of)
end

-- Return a job to its lane or to the schedule. Its claim is closed without the act.
local function put_back(job, id, record, at_ms, lease)
  q.close_claim(job, lease.token)
  job.since_ms = math.max(at_ms, now_ms)
  call('HSET', keys.jobs, id, q.pack_record(job, q.payload_of(record)))
  if at_ms > now_ms then call('ZADD', keys.scheduled, q.int(at_ms), id) end
end

local act = {}
function act.cancelled(job, id, lease, e)
  q.release_lease(id, lease, true)
  q.end_job('cancelled', id, job.lane, e)
end
function act.retry(job, id, lease, e, record)
  q.release_lease(id, lease)
  job.attempts = job.attempts + 1
  put_back(job, id, record, e.next_ms, lease)
  if e.next_ms <= now_ms then q.push_tail(job.lane, id) end
  q.emit('retry', e)
  q.count('retry')
end
function act.defer(job, id, lease, e, record, untried)
  q.release_lease(id, lease, untried)
  put_back(job, id, record, e.next_ms, lease)
  if e.next_ms <= now_ms then q.push_tail(job.lane, id) end
  q.emit('defer', e)
  q.count('defer')
end
function act.delay(job, id, lease, e, record) act.defer(job, id, lease, e, record, true) end
function act.release(job, id, lease, e, record)
  q.release_lease(id, lease, true)
  e.next_ms = now_ms
  put_back(job, id, record, now_ms, lease)
  q.push_head(job.lane, id)
  q.emit('released', e)
  q.count('released')
end
function act.dead(job, id, lease, e, record)
  q.release_lease(id, lease)
  job.attempts = job.attempts + 1
  q.close_claim(job, lease.token)
  call('HSET', keys.jobs, id, q.pack_record(job, q.payload_of(record)))
  q.dead_letter(id, q.lane_of(job.lane), e)
end
function act.uncertain(job, id, lease, e)
  if lease.held then return end
  q.release_lease(id, lease)
  q.hold(id, lease, e)
end

local LATER = { retry = true, defer = true, delay = true }
local settled = {}
for i, command in ipairs(commands) do
  local id, of, verdict, at_ms, delay_ms, cause, err = unpack(command)
  local lease = not settled[id] and lease_of(i, id, of)
  if lease then
    local job = q.read_record(records[i])
    local e = {
      id = id, token = of, attempt = job.attempts + 1, claim = job.closed + 1,
      cause = cause, error = err, note = ARGV[12 + i],
    }
    if LATER[verdict] then e.next_ms = at_ms > 0 and at_ms or now_ms + delay_ms end
    act[verdict](job, id, lease, e, records[i])
    settled[id] = true
  else
    stale[#stale + 1] = id
  end
end
q.write_moves()
q.count('stale', #stale)

ids, records = {}, {}
local lanes = {}
if want > 0 then
  q.write_gates()
  ids, records, lanes = q.claim_batch(worker, want, tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[9]))
end
under = q.last_token()
q.remember(worker, nonce, stale, ids, under, ARGV[5])
q.finish()
return q.reply(stale, ids, under, records, lanes)
