-- Lease up to `want` jobs that every gate of their lanes admits now.
-- uses     base lanes events gates moves take
-- KEYS[1]  base
-- ARGV[1]  now_ms       empty for the server's TIME
-- ARGV[2]  worker
-- ARGV[3]  nonce        the same nonce again returns the same batch
-- ARGV[4]  want         1 to 1000
-- ARGV[5]  lease_ms
-- ARGV[6]  remember_ms  how long an ended id stays known without an acknowledgement
-- ARGV[7]  done_kept    completed jobs in the history
-- ARGV[8]  failed_kept  and of those that died or expired
-- ARGV[9]  events_cap   events that wait to be recorded: with so many, nothing is claimed
-- returns  msgpack [stale ids, next_ms or 0, [id, ...], token, [[lane number, name], ...], full, more], then records
-- cost     O((n + scans) log L), scans <= want + 64

q.keep_last(ARGV[7], ARGV[8])
local worker, nonce = ARGV[2], ARGV[3]
local _, known, under = q.recall(worker, nonce)
if known then return q.reply_again({}, known, under) end
local ids, records, lanes =
  q.claim_batch(worker, tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[9]))
q.remember(worker, nonce, {}, ids, q.last_token(), ARGV[5])
q.finish()
return q.reply({}, ids, q.last_token(), records, lanes)
