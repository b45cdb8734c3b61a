-- Shrinks a finished request's hold to its charge and gives back its place, before the client sees the end:
-- a client that sends its next request at once is not refused for the one before. Settling does the rest.
-- KEYS: hold, account, bucket
-- ARGV: charge in nano-dollars, tokens used
local hold = redis.call('HMGET', KEYS[1], 'amount_nano', 'tokens', 'released')
if not hold[1] or hold[3] then
  return 0
end
redis.call('HSET', KEYS[1], 'amount_nano', ARGV[1], 'released', '1')
redis.call('HINCRBY', KEYS[2], 'held', '-' .. hold[1])
redis.call('HINCRBY', KEYS[2], 'held', ARGV[1])
for index = 2, 3 do
  if redis.call('HINCRBY', KEYS[index], 'inflight', -1) < 0 then
    redis.call('HSET', KEYS[index], 'inflight', 0)
  end
end
local unused = (tonumber(hold[2]) or 0) - tonumber(ARGV[2])
if unused > 0 then
  redis.call('HINCRBYFLOAT', KEYS[3], 'tokens', unused)
end
return 1
