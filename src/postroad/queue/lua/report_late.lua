-- Append the outcome of a job whose lease was lost.
-- uses     base lanes events gates moves
-- KEYS[1]  base
-- ARGV[1]  now_ms  empty for the server's TIME
-- ARGV[2]  id
-- ARGV[3]  token
-- ARGV[4]  note
-- returns  1
-- cost     O(1)

q.emit('late', { id = ARGV[2], token = tonumber(ARGV[3]), note = ARGV[4] })
q.count('late')
q.finish()
return 1
