-- Put one dead event back before the meter, once: what it costs is pending again.
--
-- KEYS  1 dead stream   2 usage stream   3 account hash
-- ARGV  1 id in the dead stream   2 event   3 request id   4 tenant id   5 charge

if redis.call('XDEL', KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call('HINCRBY', KEYS[3], 'pending', ARGV[5])
redis.call('XADD', KEYS[2], '*', 'event', ARGV[2], 'request_id', ARGV[3], 'tenant_id', ARGV[4],
  'charge_nano', ARGV[5])
return 1
