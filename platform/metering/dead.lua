-- Move one refused event to the dead stream, once, and take what it had made pending out again.
--
-- KEYS  1 usage stream   2 dead stream   3 account hash
-- ARGV  1 group   2 message id   3 event   4 request id   5 tenant id   6 charge   7 reason   8 time in ms

if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then
  return 0
end
redis.call('XDEL', KEYS[1], ARGV[2])
redis.call('XADD', KEYS[2], '*', 'event', ARGV[3], 'request_id', ARGV[4], 'tenant_id', ARGV[5],
  'charge_nano', ARGV[6], 'reason', ARGV[7], 'at_ms', ARGV[8])
local pending = tonumber(redis.call('HGET', KEYS[3], 'pending') or '0')
if tonumber(ARGV[6]) > 0 and pending > 0 then
  if pending > tonumber(ARGV[6]) then
    redis.call('HINCRBY', KEYS[3], 'pending', '-' .. ARGV[6])
  else
    redis.call('HSET', KEYS[3], 'pending', '0')
  end
end
return 1
