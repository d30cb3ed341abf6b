-- Return dead letters to their lanes, or delete them: by id, or a slice of all, optionally of one cause.
-- uses     base lanes events gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  action  `replay`: attempts start again; `drop`: the job is deleted, its id remembered
-- ARGV[3]  cause   only letters of this cause, if not empty
-- ARGV[4]  after   letters to skip, by age
-- ARGV[5]  limit   letters to process
-- ARGV[6]  ids     msgpack [id, ...]; empty: by age
-- returns  letters processed, letters replayed or dropped
-- cost     O(n log n)

local ids = cmsgpack.unpack(ARGV[6])
if #ids == 0 then ids = call('ZRANGE', keys.dead, tonumber(ARGV[4]), tonumber(ARGV[4]) + tonumber(ARGV[5]) - 1) end
local moved = 0
for _, id in ipairs(ids) do
  local packed = call('HGET', keys.letters, id)
  local letter = packed and cmsgpack.unpack(packed)
  if letter and (ARGV[3] == '' or letter[4] == ARGV[3]) then
    call('HDEL', keys.letters, id)
    call('ZREM', keys.dead, id)
    if ARGV[2] == 'drop' then
      q.adjust_live(q.read_record(call('HGET', keys.jobs, id)).lane, -1)
      call('HDEL', keys.jobs, id)
      call('HSET', keys.remembered, id, q.int(now_ms))
      q.count('dropped')
    else
      local record = call('HGET', keys.jobs, id)
      local job = q.read_record(record)
      job.attempts, job.since_ms = 0, now_ms
      call('HSET', keys.jobs, id, q.pack_record(job, q.payload_of(record)))
      q.push_tail(job.lane, id)
      q.emit('replayed', { id = id, token = q.this_token(), cause = letter[4] })
      q.count('replayed')
    end
    moved = moved + 1
  end
end
q.finish()
return { #ids, moved }
