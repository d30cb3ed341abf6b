-- Return dead letters, newest first. Read-only.
-- uses     base
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  offset
-- ARGV[3]  limit   letters at most
-- returns  msgpack [[id, at_ms, lane, token, attempt, cause, error], ...], then payloads
-- cost     O(log n + k)

local found = call('ZREVRANGE', keys.dead, tonumber(ARGV[2]), tonumber(ARGV[2]) + tonumber(ARGV[3]) - 1, 'WITHSCORES')
local letters, out = {}, { '' }
for i = 1, #found, 2 do
  local letter = cmsgpack.unpack(call('HGET', keys.letters, found[i]))
  letters[#letters + 1] = { found[i], tonumber(found[i + 1]), unpack(letter) }
  out[#out + 1] = q.payload_of(call('HGET', keys.jobs, found[i]))
end
out[1] = cmsgpack.pack(letters)
return out
